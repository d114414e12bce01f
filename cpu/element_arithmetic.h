// Arithmetic of packed weights, rounded operation by operation on either side, and loads of bytes that lie anywhere.
#pragma once

#include "formats.h"

namespace airk {

#ifdef __CUDA_ARCH__
AIRK_INLINE float times(float a, float b) { return __fmul_rn(a, b); }
AIRK_INLINE float plus(float a, float b) { return __fadd_rn(a, b); }
// __fdiv_rn calls a function where an operand is out of range, for which kernels would have to spill registers. On significands in [1, 2)
// its usual way (Markstein's) is always right; two powers of two bring the quotient to its size, where only a subnormal one is rounded again.
AIRK_INLINE float divide(float a, float b) {
  constexpr unsigned kFraction = 0x7fffffu, kOne = 0x3f800000u;
  if (!(fabsf(b) > 0.0f && fabsf(b) < INFINITY && fabsf(a) > 0.0f && fabsf(a) < INFINITY)) return __fmul_rn(a, __fdividef(1.0f, b));
  int exponent = 0;
  if (fabsf(b) < 1.17549435e-38f) b = __fmul_rn(b, 16777216.0f), exponent += 24;
  if (fabsf(a) < 1.17549435e-38f) a = __fmul_rn(a, 16777216.0f), exponent -= 24;
  const unsigned abits = __float_as_uint(a), bbits = __float_as_uint(b), sign = (abits ^ bbits) & 0x80000000u;
  exponent += static_cast<int>(abits >> 23 & 255) - static_cast<int>(bbits >> 23 & 255);
  const float x = __uint_as_float((abits & kFraction) | kOne), d = __uint_as_float((bbits & kFraction) | kOne);
  float r = __fdividef(1.0f, d);
  r = __fmaf_rn(r, __fmaf_rn(-d, r, 1.0f), r);
  float q = __fmul_rn(x, r);
  q = __fmaf_rn(r, __fmaf_rn(-d, q, x), q);
  q = __fmaf_rn(r, __fmaf_rn(-d, q, x), q);
  exponent = max(-252, min(252, exponent));  // beyond, it is 0 or infinity all the same
  const int half = exponent / 2, rest = exponent - half;
  q = __fmul_rn(q, __uint_as_float(static_cast<unsigned>(127 + half) << 23));
  q = __fmul_rn(q, __uint_as_float(static_cast<unsigned>(127 + rest) << 23));
  return __uint_as_float(__float_as_uint(q) | sign);
}
#else
AIRK_INLINE float times(float a, float b) { return a * b; }
AIRK_INLINE float plus(float a, float b) { return a + b; }
AIRK_INLINE float divide(float a, float b) { return a / b; }
#endif

AIRK_INLINE uint16_t load_u16(const uint8_t *at) { return static_cast<uint16_t>(at[0] | at[1] << 8); }
AIRK_INLINE float load_f32(const uint8_t *at) {
  return float_of(static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 | static_cast<uint32_t>(at[2]) << 16 | static_cast<uint32_t>(at[3]) << 24);
}

AIRK_INLINE float round_to_type(float value, int32_t type) {
  return type == AIRK_F32 ? value : type == AIRK_F16 ? from_f16(to_f16(value)) : from_bf16(to_bf16(value));
}

AIRK_INLINE float load_scale(const uint8_t *scale, uint64_t index, int32_t type) {
  return type == AIRK_F16 ? from_f16(load_u16(scale + 2 * index)) : type == AIRK_BF16 ? from_bf16(load_u16(scale + 2 * index)) : load_f32(scale + 4 * index);
}

// e4m3 without infinities, as the OCP's 8-bit formats have it: the exponent's bias differs from float16's by 8, and 0x7f is NaN.
AIRK_INLINE float from_e4m3(uint8_t v) {
  if ((v & 0x7f) == 0x7f) return float_of(0x7fc00000u | static_cast<uint32_t>(v & 0x80) << 24);
  return from_f16(static_cast<uint16_t>((v & 0x80) << 8 | (v & 0x7f) << 7)) * 256.0f;
}

// 2 ^ (v - 127); 255 is NaN.
AIRK_INLINE float from_e8m0(uint8_t v) {
  return float_of(v == 255 ? 0x7fc00000u : v == 0 ? 0x00400000u : static_cast<uint32_t>(v) << 23);
}

// e2m1: 0 .5 1 1.5 2 3 4 6, bit 3 is the sign.
AIRK_INLINE float from_e2m1(uint32_t v) {
  const uint32_t magnitude = v & 7, sign = (v & 8) << 28;
  return float_of(sign | (magnitude == 0 ? 0u : magnitude == 1 ? 0x3f000000u : ((magnitude >> 1) + 126u) << 23 | (magnitude & 1) << 22));
}

}  // namespace airk
