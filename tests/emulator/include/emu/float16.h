// Conversions between float and the two 16-bit formats, in integer arithmetic: round to nearest, ties to even, exact for
// subnormals, infinities and NaN on every machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace emu {

inline uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint16_t float_to_half(float value) {
  if (!(value == value)) return 0x7fff;  // the NaN that CUDA's conversions give
#ifdef __F16C__
  return static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
#else
  const uint32_t bits = float_bits(value), magnitude = bits & 0x7fffffffu;
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
  if (magnitude < 0x33000000u) return sign;                                    // below half of the least subnormal
  int shift = 13;
  uint32_t significand = magnitude - (112u << 23);  // rebias the exponent from 127 to 15
  if (magnitude < 0x38800000u) {                    // subnormal in half: make the leading 1 explicit and shift it down
    significand = (magnitude & 0x7fffffu) | 0x800000u;
    shift = 126 - static_cast<int>(magnitude >> 23);
  }
  const uint32_t kept = significand >> shift, lost = significand & ((1u << shift) - 1), halfway = 1u << (shift - 1);
  return static_cast<uint16_t>(sign | (kept + (lost > halfway || (lost == halfway && (kept & 1)))));
#endif
}

inline float half_to_float(uint16_t bits) {
#ifdef __F16C__
  return _cvtsh_ss(bits);
#else
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13) | (magnitude > 0x7c00u ? 0x400000u : 0));
  if (magnitude >= 0x400u) return bits_float(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // 2^-24
  return sign ? -subnormal : subnormal;
#endif
}

inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline float bfloat16_to_float(uint16_t bits) { return bits_float(static_cast<uint32_t>(bits) << 16); }

// Rounds towards zero and, where that is not exact, sets the last bit: rounding the result once more, to 16 bits, then gives
// what rounding `exact` directly would (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums").
inline float round_to_odd(double exact) {
  const float nearest = static_cast<float>(exact);
  if (static_cast<double>(nearest) == exact || !std::isfinite(nearest)) return nearest;
  const bool beyond = std::fabs(static_cast<double>(nearest)) > std::fabs(exact);
  return bits_float((float_bits(nearest) - (beyond ? 1u : 0u)) | 1u);
}

}  // namespace emu
