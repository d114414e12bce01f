// GGUF's blocks (ggml-common.h; gguf-py's quants.py), one weight at a time: w = step * code - minimum, where a step and a minimum belong to 16
// columns of the 32 of a block, or of one of a long block's eight. Of the families here an extent has a block's small numbers apart from its codes
// (cuda/airkern.h), so that codes are read in whole words.
#pragma once

#include "element_arithmetic.h"
#include "gguf_grids.h"

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
template <Family F> constexpr bool is_grid_gguf = F == Family::iq2_xxs || F == Family::iq2_xs || F == Family::iq2_s || F == Family::iq3_xxs ||
                                                 F == Family::iq3_s || F == Family::iq1_s || F == Family::iq1_m;
template <Family F>
constexpr bool is_long_gguf = F == Family::q2_k || F == Family::q3_k || F == Family::iq4_xs || F == Family::tq2_0 || is_grid_gguf<F>;

// Bytes of a long block's small numbers, of its codes, and of what does not fit those.
struct LongGgufBytes {
  uint64_t head, high, code;
};
AIRK_INLINE constexpr LongGgufBytes long_gguf_bytes(Family family) {
  switch (family) {
    case Family::q2_k: return {20, 0, 64};
    case Family::q3_k: return {14, 32, 64};
    case Family::iq4_xs: return {8, 0, 128};
    case Family::tq2_0: return {2, 0, 64};
    case Family::iq2_xxs: return {2, 0, 64};
    case Family::iq2_xs: return {10, 0, 64};
    case Family::iq2_s: return {10, 8, 64};
    case Family::iq3_xxs: return {2, 32, 64};
    case Family::iq3_s: return {6, 40, 64};
    case Family::iq1_s: return {2, 16, 32};
    case Family::iq1_m: return {8, 16, 32};
    default: return {0, 0, 0};
  }
}
template <Family F> AIRK_INLINE const uint8_t *gguf_head(const PackedView &p, uint64_t index) { return p.scale + index * long_gguf_bytes(F).head; }
template <Family F> AIRK_INLINE const uint8_t *gguf_high(const PackedView &p, uint64_t index) { return p.high + index * long_gguf_bytes(F).high; }
template <Family F> AIRK_INLINE const uint8_t *gguf_codes(const PackedView &p, uint64_t index) { return p.code + index * long_gguf_bytes(F).code; }

// Tables of points. A local table would lie in local memory on a device.
#define AIRK_GRID_TABLES(QUALIFIERS, PREFIX)                        \
  QUALIFIERS uint16_t PREFIX##iq2_xxs[256] = AIRK_GRID_IQ2_XXS; \
  QUALIFIERS uint16_t PREFIX##iq2_xs[512] = AIRK_GRID_IQ2_XS;   \
  QUALIFIERS uint16_t PREFIX##iq2_s[1024] = AIRK_GRID_IQ2_S;    \
  QUALIFIERS uint16_t PREFIX##iq3_xxs[256] = AIRK_GRID_IQ3_XXS; \
  QUALIFIERS uint16_t PREFIX##iq3_s[512] = AIRK_GRID_IQ3_S;     \
  QUALIFIERS uint16_t PREFIX##iq1[2048] = AIRK_GRID_IQ1;
#ifdef __CUDACC__
AIRK_GRID_TABLES(static __device__ const, device_grid_)
#endif
AIRK_GRID_TABLES(constexpr, host_grid_)
#ifdef __CUDA_ARCH__
#define AIRK_GRID(name) device_grid_##name
#else
#define AIRK_GRID(name) host_grid_##name
#endif

AIRK_INLINE uint32_t load_u32(const uint8_t *at) { return static_cast<uint32_t>(load_u16(at)) | static_cast<uint32_t>(load_u16(at + 2)) << 16; }

// The eighth sign of seven that are stored: their number is even.
AIRK_INLINE unsigned with_eighth_sign(unsigned seven) {
  unsigned parity = seven ^ (seven >> 4);
  parity ^= parity >> 2;
  return seven | ((parity ^ parity >> 1) & 1) << 7;
}

// Eight neighbouring columns of an IQ type: indices of their values, and which of them are negative; of iq1 whether all are shifted down.
struct GridGroup {
  uint32_t point;
  unsigned signs;
};

// group: 0 .. 3 of the 32 columns.
template <Family F> AIRK_INLINE GridGroup gguf_grid(const PackedView &p, uint64_t index, int sub, int group) {
  const uint8_t *code = gguf_codes<F>(p, index), *high = gguf_high<F>(p, index);
  if constexpr (F == Family::iq2_xxs) {
    const uint8_t *own = code + 8 * sub;
    return {AIRK_GRID(iq2_xxs)[own[group]], with_eighth_sign(load_u32(own + 4) >> (7 * group) & 127)};
  } else if constexpr (F == Family::iq2_xs) {
    const unsigned both = load_u16(code + 8 * sub + 2 * group);
    return {AIRK_GRID(iq2_xs)[both & 511], with_eighth_sign(both >> 9)};
  } else if constexpr (F == Family::iq2_s) {
    const int n = 4 * sub + group;
    return {AIRK_GRID(iq2_s)[code[n] | (high[sub] >> (2 * group) & 3) << 8], code[32 + n]};
  } else if constexpr (F == Family::iq3_xxs) {
    const uint8_t *own = code + 8 * sub + 2 * group;
    const uint32_t point = AIRK_GRID(iq3_xxs)[own[0]] | static_cast<uint32_t>(AIRK_GRID(iq3_xxs)[own[1]]) << 12;
    return {point, with_eighth_sign(load_u32(high + 4 * sub) >> (7 * group) & 127)};
  } else if constexpr (F == Family::iq3_s) {
    const uint8_t *own = code + 8 * sub + 2 * group;
    const int first = own[0] | (high[sub] >> (2 * group) & 1) << 8, second = own[1] | (high[sub] >> (2 * group + 1) & 1) << 8;
    return {AIRK_GRID(iq3_s)[first] | static_cast<uint32_t>(AIRK_GRID(iq3_s)[second]) << 12, high[8 + 4 * sub + group]};
  } else if constexpr (F == Family::iq1_s) {
    const unsigned bits = load_u16(high + 2 * sub);
    return {AIRK_GRID(iq1)[code[4 * sub + group] | (bits >> (3 * group) & 7) << 8], bits >> 15 ? 255u : 0u};
  } else {
    const unsigned bits = high[(4 * sub + group) / 2] >> (4 * (group % 2));
    return {AIRK_GRID(iq1)[code[4 * sub + group] | (bits & 7) << 8], bits & 8 ? 255u : 0u};
  }
}

// The code of column j of eight: of iq1 eight times the value, whose shift is an eighth.
template <Family F> AIRK_INLINE int grid_code(const GridGroup &group, int j) {
  const bool negative = (group.signs >> j & 1) != 0;
  if constexpr (F == Family::iq1_s || F == Family::iq1_m) {
    return 8 * (static_cast<int>(group.point >> (2 * j) & 3) - 1) + (negative ? -1 : 1);
  } else {
    constexpr int bits = F == Family::iq3_xxs || F == Family::iq3_s ? 3 : 2;
    const int i = static_cast<int>(group.point >> (bits * j)) & ((1 << bits) - 1);
    // 8, 25, 43; 4, 12, ... 52, 62; 1, 3, ... 15.
    const int value = bits == 2 ? 8 + 17 * i + i / 2 : F == Family::iq3_xxs ? 4 + 8 * i + (i == 7 ? 2 : 0) : 1 + 2 * i;
    return negative ? -value : value;
  }
}

// The code of column j of 32. index: of the block among all of the extent; sub: which 32 columns of a long block.
template <Family F> AIRK_INLINE int gguf_code(const PackedView &p, uint64_t index, int sub, int j) {
  if constexpr (is_short_gguf<F>) {
    const int byte = p.code[index * 16 + static_cast<uint64_t>(j % 16)], low = j < 16 ? byte & 15 : byte >> 4;
    if constexpr (F == Family::q4_1) return low;
    const int code = low | (p.high[index * 4 + static_cast<uint64_t>(j / 8)] >> (j % 8) & 1) << 4;
    return F == Family::q5_0 ? code - 16 : code;
  } else if constexpr (is_grid_gguf<F>) {
    return grid_code<F>(gguf_grid<F>(p, index, sub, j / 8), j % 8);
  } else if constexpr (F == Family::iq4_xs) {
    const int byte = gguf_codes<F>(p, index)[16 * sub + j % 16];
    return static_cast<int>(from_iq4_nl(static_cast<unsigned>(j < 16 ? byte & 15 : byte >> 4)));
  } else {
    const int low = gguf_codes<F>(p, index)[32 * (sub / 4) + j] >> (2 * (sub % 4)) & 3;
    if constexpr (F == Family::tq2_0) return low - 1;
    if constexpr (F == Family::q2_k) return low;
    return (low | (gguf_high<F>(p, index)[j] >> sub & 1) << 2) - 4;
  }
}

// half: 0 for the first 16 of the 32 columns, 1 for the others.
template <Family F> AIRK_INLINE float gguf_step(const PackedView &p, uint64_t index, int sub, int half) {
  if constexpr (F == Family::q5_0 || F == Family::tq2_0) {
    return from_f16(load_u16(p.scale + 2 * index));
  } else if constexpr (is_short_gguf<F>) {
    return from_f16(load_u16(p.scale + 4 * index));
  } else if constexpr (F == Family::q2_k) {
    const uint8_t *head = gguf_head<F>(p, index);
    return times(from_f16(load_u16(head + 16)), static_cast<float>(head[2 * sub + half] & 15));
  } else if constexpr (F == Family::q3_k) {
    const uint8_t *head = gguf_head<F>(p, index);
    const int i = 2 * sub + half, low = head[i % 8] >> (4 * (i / 8)) & 15, high = head[8 + i % 4] >> (2 * (i / 4)) & 3;
    return times(from_f16(load_u16(head + 12)), static_cast<float>((low | high << 4) - 32));
  } else if constexpr (F == Family::iq4_xs) {
    const uint8_t *head = gguf_head<F>(p, index);
    const int low = head[4 + sub / 2] >> (4 * (sub % 2)) & 15, high = load_u16(head + 2) >> (2 * sub) & 3;
    return times(from_f16(load_u16(head)), static_cast<float>((low | high << 4) - 32));
  } else if constexpr (F == Family::iq1_m) {
    // The scale's four bits lie above those of each four of the steps.
    const uint8_t *head = gguf_head<F>(p, index);
    unsigned scale = 0;
    for (int i = 0; i < 4; i++) scale |= static_cast<unsigned>(load_u16(head + 2 * i) >> 12) << (4 * i);
    const int step = load_u16(head + 2 * (sub / 2)) >> (3 * (2 * (sub % 2) + half)) & 7;
    return times(from_f16(static_cast<uint16_t>(scale)), 0.125f * static_cast<float>(2 * step + 1));
  } else {
    const uint8_t *head = gguf_head<F>(p, index);
    const float scale = from_f16(load_u16(head));
    if constexpr (F == Family::iq2_xs || F == Family::iq2_s) return times(scale, 0.25f * (0.5f + static_cast<float>(head[2 + sub] >> (4 * half) & 15)));
    if constexpr (F == Family::iq3_s) return times(scale, static_cast<float>(1 + 2 * (head[2 + sub / 2] >> (4 * (sub % 2)) & 15)));
    if constexpr (F == Family::iq1_s) return times(scale, 0.125f * static_cast<float>(2 * (load_u16(gguf_high<F>(p, index) + 2 * sub) >> 12 & 7) + 1));
    if constexpr (F == Family::iq2_xxs) return times(scale, 0.25f * (0.5f + static_cast<float>(load_u32(gguf_codes<F>(p, index) + 8 * sub + 4) >> 28)));
    return times(scale, 0.5f * (0.5f + static_cast<float>(load_u32(gguf_high<F>(p, index) + 4 * sub) >> 28)));
  }
}

template <Family F> AIRK_INLINE float gguf_minimum(const PackedView &p, uint64_t index, int sub, int half) {
  if constexpr (F == Family::q4_1 || F == Family::q5_1) {
    return -from_f16(load_u16(p.scale + 4 * index + 2));
  } else if constexpr (F == Family::q2_k) {
    const uint8_t *head = gguf_head<F>(p, index);
    return times(from_f16(load_u16(head + 18)), static_cast<float>(head[2 * sub + half] >> 4));
  } else {
    return 0.0f;
  }
}

}  // namespace airk
