// One weight of a packed extent, the definition of every packed format: shared by the portable loops and by the CUDA library, so that both
// give the same bits. Products and sums are rounded one by one, never fused.
#pragma once

#include <type_traits>

#include "element_arithmetic.h"
#include "formats.h"
#include "gguf_blocks.h"

namespace airk {

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
  } else if constexpr (is_short_gguf<F>) {
    const uint64_t index = row * blocks + col / 32;
    const int j = static_cast<int>(col % 32);
    return plus(times(gguf_step<F>(p, index, 0, j / 16), static_cast<float>(gguf_code<F>(p, index, 0, j))), -gguf_minimum<F>(p, index, 0, j / 16));
  } else if constexpr (is_long_gguf<F>) {
    const uint64_t index = row * (cols / super_block) + col / super_block;
    const int sub = static_cast<int>(col % super_block / 32), j = static_cast<int>(col % 32);
    return plus(times(gguf_step<F>(p, index, sub, j / 16), static_cast<float>(gguf_code<F>(p, index, sub, j))), -gguf_minimum<F>(p, index, sub, j / 16));
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
    case Family::q4_1: return run(std::integral_constant<Family, Family::q4_1>());
    case Family::q5_0: return run(std::integral_constant<Family, Family::q5_0>());
    case Family::q5_1: return run(std::integral_constant<Family, Family::q5_1>());
    case Family::q2_k: return run(std::integral_constant<Family, Family::q2_k>());
    case Family::q3_k: return run(std::integral_constant<Family, Family::q3_k>());
    case Family::iq4_xs: return run(std::integral_constant<Family, Family::iq4_xs>());
    case Family::tq2_0: return run(std::integral_constant<Family, Family::tq2_0>());
    case Family::iq2_xxs: return run(std::integral_constant<Family, Family::iq2_xxs>());
    case Family::iq2_xs: return run(std::integral_constant<Family, Family::iq2_xs>());
    case Family::iq2_s: return run(std::integral_constant<Family, Family::iq2_s>());
    case Family::iq3_xxs: return run(std::integral_constant<Family, Family::iq3_xxs>());
    case Family::iq3_s: return run(std::integral_constant<Family, Family::iq3_s>());
    case Family::iq1_s: return run(std::integral_constant<Family, Family::iq1_s>());
    case Family::iq1_m: return run(std::integral_constant<Family, Family::iq1_m>());
  }
}

}  // namespace airk
