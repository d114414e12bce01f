// GGUF's blocks (ggml-common.h; gguf-py's quants.py), one weight at a time: w = step * code - minimum, where a step and a minimum belong to 16
// columns of the 32 of a block, or of one of a long block's eight. Of the families here an extent has a block's small numbers apart from its codes
// (cuda/airkern.h), so that codes are read in whole words.
#pragma once

#include "element_arithmetic.h"

namespace airk {

// Where element `col` of a row's 4-bit codes lies: in a block of 32 byte j holds element j low and 16 + j high.
AIRK_INLINE uint32_t nibble(const uint8_t *code, uint64_t blocks, uint64_t row, uint64_t col) {
  const uint32_t byte = code[(row * blocks + col / 32) * 16 + col % 16];
  return col % 32 < 16 ? byte & 15 : byte >> 4;
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

template <Family F> constexpr bool is_short_gguf = F == Family::q4_1 || F == Family::q5_0 || F == Family::q5_1;
template <Family F> constexpr bool is_long_gguf = F == Family::q2_k || F == Family::q3_k || F == Family::iq4_xs || F == Family::tq2_0;

// Bytes of a block's small numbers, and of its codes.
constexpr uint64_t q2_k_head = 20, q3_k_head = 14, iq4_xs_head = 8, two_bit_codes = 64, iq4_xs_codes = 128, q3_k_high = 32;

// The code of column j of 32. index: of the block among all of the extent; sub: which 32 columns of a long block.
template <Family F> AIRK_INLINE int gguf_code(const PackedView &p, uint64_t index, int sub, int j) {
  if constexpr (is_short_gguf<F>) {
    const int byte = p.code[index * 16 + static_cast<uint64_t>(j % 16)], low = j < 16 ? byte & 15 : byte >> 4;
    if constexpr (F == Family::q4_1) return low;
    const int code = low | (p.high[index * 4 + static_cast<uint64_t>(j / 8)] >> (j % 8) & 1) << 4;
    return F == Family::q5_0 ? code - 16 : code;
  } else if constexpr (F == Family::iq4_xs) {
    const int byte = p.code[index * iq4_xs_codes + static_cast<uint64_t>(16 * sub + j % 16)];
    return static_cast<int>(from_iq4_nl(static_cast<unsigned>(j < 16 ? byte & 15 : byte >> 4)));
  } else {
    const int low = p.code[index * two_bit_codes + static_cast<uint64_t>(32 * (sub / 4) + j)] >> (2 * (sub % 4)) & 3;
    if constexpr (F == Family::tq2_0) return low - 1;
    if constexpr (F == Family::q2_k) return low;
    return (low | (p.high[index * q3_k_high + static_cast<uint64_t>(j)] >> sub & 1) << 2) - 4;
  }
}

// half: 0 for the first 16 of the 32 columns, 1 for the others.
template <Family F> AIRK_INLINE float gguf_step(const PackedView &p, uint64_t index, int sub, int half) {
  if constexpr (F == Family::q5_0 || F == Family::tq2_0) {
    return from_f16(load_u16(p.scale + 2 * index));
  } else if constexpr (is_short_gguf<F>) {
    return from_f16(load_u16(p.scale + 4 * index));
  } else if constexpr (F == Family::q2_k) {
    const uint8_t *head = p.scale + index * q2_k_head;
    return times(from_f16(load_u16(head + 16)), static_cast<float>(head[2 * sub + half] & 15));
  } else if constexpr (F == Family::q3_k) {
    const uint8_t *head = p.scale + index * q3_k_head;
    const int i = 2 * sub + half, low = head[i % 8] >> (4 * (i / 8)) & 15, high = head[8 + i % 4] >> (2 * (i / 4)) & 3;
    return times(from_f16(load_u16(head + 12)), static_cast<float>((low | high << 4) - 32));
  } else {
    const uint8_t *head = p.scale + index * iq4_xs_head;
    const int low = head[4 + sub / 2] >> (4 * (sub % 2)) & 15, high = load_u16(head + 2) >> (2 * sub) & 3;
    return times(from_f16(load_u16(head)), static_cast<float>((low | high << 4) - 32));
  }
}

template <Family F> AIRK_INLINE float gguf_minimum(const PackedView &p, uint64_t index, int sub, int half) {
  if constexpr (F == Family::q4_1 || F == Family::q5_1) {
    return -from_f16(load_u16(p.scale + 4 * index + 2));
  } else if constexpr (F == Family::q2_k) {
    const uint8_t *head = p.scale + index * q2_k_head;
    return times(from_f16(load_u16(head + 18)), static_cast<float>(head[2 * sub + half] >> 4));
  } else {
    return 0.0f;
  }
}

}  // namespace airk
