// Conversions between float32 and the 16-bit types, bit by bit, so that they are the same on every machine.
// Always inlined: a copy compiled with one instruction set must never serve another.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define AIRK_INLINE static inline __host__ __device__ __attribute__((always_inline))
#else
#define AIRK_INLINE static inline __attribute__((always_inline))
#endif

namespace airk {

AIRK_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

AIRK_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

AIRK_INLINE float from_bf16(uint16_t value) { return float_of(static_cast<uint32_t>(value) << 16); }

// Rounds to nearest even; NaN stays NaN.
AIRK_INLINE uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

AIRK_INLINE float from_f16(uint16_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
  const uint32_t rest = value & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x400u) return float_of(sign | ((rest << 13) + (112u << 23)));
  // Subnormal: rest is a count of 2^-24.
  return float_of(sign | bits_of(static_cast<float>(rest) * 5.9604644775390625e-8f));
}

// Rounds to nearest even; beyond 65504 becomes infinity.
AIRK_INLINE uint16_t to_f16(float value) {
  const uint32_t bits = bits_of(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude >= 0x38800000u) {
    const uint32_t shifted = magnitude - (112u << 23);
    return static_cast<uint16_t>(sign | ((shifted + 0xfffu + ((shifted >> 13) & 1u)) >> 13));
  }
  // Adding 0.5 leaves the value in units of 2^-24 in the low bits of the mantissa, rounded to nearest even.
  return static_cast<uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
}

}  // namespace airk
