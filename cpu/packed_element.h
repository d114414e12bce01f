// One weight of a packed extent, the definition of every packed format: shared by the portable loops and by the CUDA library, so that both
// give the same bits. Products and sums are rounded one by one, never fused.
#pragma once

#include <type_traits>

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

// Where element `col` of a row's 4-bit codes lies: in a block of 32 byte j holds element j low and 16 + j high.
AIRK_INLINE uint32_t nibble(const uint8_t *code, uint64_t blocks, uint64_t row, uint64_t col) {
  const uint32_t byte = code[(row * blocks + col / 32) * 16 + col % 16];
  return col % 32 < 16 ? byte & 15 : byte >> 4;
}

// Which of a row's scales a column has. What a file says of it is cut to what there is, as reading elsewhere would be an overrun.
AIRK_INLINE uint64_t group_of(const PackedView &p, uint64_t row, uint64_t col) {
  if (p.packing.order) {
    const uint64_t group = load_u16(p.order + 2 * col);
    return row * p.groups + (group < p.groups ? group : p.groups - 1);
  }
  return row * p.groups + (p.packing.group_shift == group_row ? 0 : col >> p.packing.group_shift);
}

AIRK_INLINE float bnb4_absmax(const PackedView &p, uint64_t block) {
  if (p.packing.second_shift == not_nested) return load_f32(p.scale + 4 * block);
  return plus(times(p.nested_map[p.scale[block]], p.nested[block >> p.packing.second_shift]), p.constant[0]);
}

// What codes of nvfp4 are multiplied by, of an e4m3 scale.
AIRK_INLINE float nvfp4_scale(const PackedView &p, uint8_t scale) {
  const float own = from_e4m3(scale);
  return p.packing.product ? times(own, p.constant[0]) : divide(own, p.constant[0]);
}

// The scale and minimum, 6 bits each, of sub-block i of 8, of the 12 bytes that q4_k and q5_k keep them in (get_scale_min_k4 in ggml-quants.c).
AIRK_INLINE void k_scale_min(const uint8_t *packed, int i, int *scale, int *minimum) {
  if (i < 4) {
    *scale = packed[i] & 63;
    *minimum = packed[i + 4] & 63;
  } else {
    *scale = (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
    *minimum = packed[i + 4] >> 4 | (packed[i] >> 6) << 4;
  }
}

#define AIRK_IQ4_NL_VALUES {-127.0f, -104.0f, -83.0f, -65.0f, -49.0f, -35.0f, -22.0f, -10.0f, 1.0f, 13.0f, 25.0f, 38.0f, 53.0f, 69.0f, 89.0f, 113.0f}
#ifdef __CUDACC__
static __device__ const float device_iq4_nl[16] = AIRK_IQ4_NL_VALUES;
#endif
AIRK_INLINE float from_iq4_nl(unsigned code) {
#ifdef __CUDA_ARCH__
  // A local table would lie in local memory, beside which ptxas spills registers.
  return device_iq4_nl[code];
#else
  constexpr float values[16] = AIRK_IQ4_NL_VALUES;
  return values[code];
#endif
}
// What torch multiplies an LLM.int8 product by: 1/127 as bitsandbytes writes it, in float32.
constexpr float scb_step = 0.00787401574803149606f;

template <Family F> AIRK_INLINE float packed_element(const PackedView &p, uint64_t cols, uint64_t row, uint64_t col) {
  const uint64_t blocks = (cols + 31) / 32;
  if constexpr (F == Family::bnb4) {
    const uint64_t element = row * cols + col;
    const uint8_t byte = p.code[element / 2];
    const float value = p.map[element % 2 == 0 ? byte >> 4 : byte & 15];
    return round_to_type(times(value, bnb4_absmax(p, element >> p.packing.group_shift)), p.packing.type);
  } else if constexpr (F == Family::int4) {
    const uint64_t group = group_of(p, row, col);
    const int zero = p.packing.zero ? p.zero[group] : 8, code = static_cast<int>(nibble(p.code, blocks, row, col));
    return times(static_cast<float>(code - zero), load_scale(p.scale, group, p.packing.type));
  } else if constexpr (F == Family::int8) {
    const uint64_t group = group_of(p, row, col);
    const int zero = p.packing.zero ? static_cast<int16_t>(load_u16(p.zero + 2 * group)) : 0;
    const int code = static_cast<int8_t>(p.code[row * blocks * 32 + col]);
    const float scaled = times(static_cast<float>(code - zero), load_scale(p.scale, group, p.packing.type));
    return p.packing.type == type_scb ? times(scaled, scb_step) : scaled;
  } else if constexpr (F == Family::fp8) {
    const uint64_t group = group_of(p, row >> p.packing.second_shift, col);
    return times(from_e4m3(p.code[row * blocks * 32 + col]), load_f32(p.scale + 4 * group));
  } else if constexpr (F == Family::mxfp4) {
    return times(from_e2m1(nibble(p.code, blocks, row, col)), from_e8m0(p.scale[row * blocks + col / 32]));
  } else if constexpr (F == Family::nvfp4) {
    const float scale = nvfp4_scale(p, p.scale[row * blocks * 2 + col / nvfp4_group]);
    return times(from_e2m1(nibble(p.code, blocks, row, col)), scale);
  } else if constexpr (F == Family::iq4_nl) {
    return times(from_iq4_nl(nibble(p.code, blocks, row, col)), from_f16(load_u16(p.scale + 2 * (row * blocks + col / 32))));
  } else {
    const int at = static_cast<int>(col % super_block);
    const uint64_t index = row * (cols / super_block) + col / super_block;
    if constexpr (F == Family::q6_k) {
      // Low four bits [128], high two bits [64], scales i8 [16], f16: in each half four runs of 32 elements share a byte of high bits.
      const uint8_t *block = p.code + index * q6_k_bytes;
      const int half = at / 128, run = at % 128 / 32, j = at % 32;
      const int low = block[64 * half + 32 * (run & 1) + j] >> (run < 2 ? 0 : 4) & 15, high = block[128 + 32 * half + j] >> (2 * run) & 3;
      const float scale = times(from_f16(load_u16(block + 208)), static_cast<float>(static_cast<int8_t>(block[192 + at / 16])));
      return times(scale, static_cast<float>((low | high << 4) - 32));
    } else {
      // d, dmin f16; scales and minima [12]; in q5_k the fifth bits [32]; low four bits [128]: 64 elements a run of 32 bytes.
      const uint8_t *block = p.code + index * (F == Family::q4_k ? q4_k_bytes : q5_k_bytes), *low = block + (F == Family::q4_k ? 16 : 48);
      const int run = at / 64, j = at % 32, sub = at / 32;
      int scale, minimum, code = low[32 * run + j] >> (at % 64 < 32 ? 0 : 4) & 15;
      k_scale_min(block + 4, sub, &scale, &minimum);
      if constexpr (F == Family::q5_k) code |= (block[16 + j] >> sub & 1) << 4;
      const float step = times(from_f16(load_u16(block)), static_cast<float>(scale));
      return plus(times(step, static_cast<float>(code)), -times(from_f16(load_u16(block + 2)), static_cast<float>(minimum)));
    }
  }
}

// Calls run(std::integral_constant<Family, F>) for the family that is meant.
template <class Run> AIRK_INLINE void for_family(Family family, Run &&run) {
  switch (family) {
    case Family::bnb4: return run(std::integral_constant<Family, Family::bnb4>());
    case Family::int4: return run(std::integral_constant<Family, Family::int4>());
    case Family::int8: return run(std::integral_constant<Family, Family::int8>());
    case Family::fp8: return run(std::integral_constant<Family, Family::fp8>());
    case Family::mxfp4: return run(std::integral_constant<Family, Family::mxfp4>());
    case Family::nvfp4: return run(std::integral_constant<Family, Family::nvfp4>());
    case Family::q4_k: return run(std::integral_constant<Family, Family::q4_k>());
    case Family::q5_k: return run(std::integral_constant<Family, Family::q5_k>());
    case Family::q6_k: return run(std::integral_constant<Family, Family::q6_k>());
    case Family::iq4_nl: return run(std::integral_constant<Family, Family::iq4_nl>());
  }
}

}  // namespace airk
