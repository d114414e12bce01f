// Rows of GGUF's blocks as float32, 32 codes at a time as bytes, over the vector type of exact.h. The bits are those of packed_element.h.
#pragma once

#include "gguf_scales.h"
#include "kernels.h"
#include "packed_element.h"

namespace airk {
namespace {

AIRK_INLINE float load_half(const uint8_t *at) { return Simd::from_half(load_u16(at)); }

// 32 bytes, of which a shift may move bits from one to another where a mask takes them off again.
typedef uint64_t Bytes32 __attribute__((vector_size(32)));
typedef int8_t Signed32 __attribute__((vector_size(32)));
constexpr uint64_t each_byte = 0x0101010101010101u;

// out [32] = codes, each half times its step, less its minimum.
template <bool Minimum> AIRK_INLINE void scale_codes_32(const void *code, const float *step, const float *minimum, float *out) {
  for (int half = 0; half < 2; half++) {
    const Simd::V s = Simd::set1(step[half]), m = Simd::set1(minimum[half]);
    for (int j = 16 * half; j < 16 * half + 16; j += Simd::width) {
      const Simd::V product = Simd::load_i8(static_cast<const int8_t *>(code) + j) * s;
      Simd::store(out + j, Minimum ? product - m : product);
    }
  }
}

// q4_1, q5_0, q5_1: out [32] = the weights of a block.
template <Family F> AIRK_INLINE void decode_short_gguf(const PackedView &p, uint64_t index, float *out) {
  const uint8_t *own = p.scale + index * (F == Family::q5_0 ? 2 : 4);
  const float scale = load_half(own), least = F == Family::q5_0 ? 0.0f : -load_half(own + 2);
  const float step[2] = {scale, scale}, minimum[2] = {least, least};
  typedef uint64_t Bytes16 __attribute__((vector_size(16)));
  Bytes16 packed;
  std::memcpy(&packed, p.code + index * 16, 16);
  const Bytes16 low = packed & 15 * each_byte, high = packed >> 4 & 15 * each_byte;
  alignas(32) uint8_t nibbles[32], fifth[32];
  std::memcpy(nibbles, &low, 16);
  std::memcpy(nibbles + 16, &high, 16);
  if constexpr (F == Family::q4_1) return scale_codes_32<true>(nibbles, step, minimum, out);
  Simd::spread_bits(p.high + index * 4, fifth);
  Bytes32 code, top;
  std::memcpy(&code, nibbles, 32);
  std::memcpy(&top, fifth, 32);
  code |= top & 16 * each_byte;
  if constexpr (F == Family::q5_0) code = reinterpret_cast<Bytes32>(reinterpret_cast<Signed32>(code) - 16);
  scale_codes_32<F != Family::q5_0>(&code, step, minimum, out);
}

// to [count] = factor * (bytes - offset), count a multiple of 16.
AIRK_INLINE void scale_bytes(const uint8_t *bytes, int count, float offset, float factor, float *to) {
  const Simd::V f = Simd::set1(factor), o = Simd::set1(offset);
  for (int i = 0; i < count; i += Simd::width) Simd::store(to + i, f * (Simd::load_i8(reinterpret_cast<const int8_t *>(bytes) + i) - o));
}

// The steps and minimums of a long block, one for 16 columns.
struct BlockScales {
  alignas(64) float step[16], minimum[16];
};

template <Family F> AIRK_INLINE void block_scales(const PackedView &p, uint64_t index, BlockScales *scales) {
  alignas(16) uint8_t bytes[32];
  if constexpr (F == Family::q4_k || F == Family::q5_k) {
    const uint8_t *block = p.code + index * (F == Family::q4_k ? q4_k_bytes : q5_k_bytes);
    uint8_t scale[8], minimum[8];
    k_scales(block + 4, scale, minimum);
    for (int i = 0; i < 16; i++) {
      bytes[i] = scale[i / 2];
      bytes[16 + i] = minimum[i / 2];
    }
    scale_bytes(bytes, 16, 0.0f, load_half(block), scales->step);
    scale_bytes(bytes + 16, 16, 0.0f, load_half(block + 2), scales->minimum);
  } else if constexpr (F == Family::q6_k) {
    const uint8_t *block = p.code + index * q6_k_bytes;
    scale_bytes(block + 192, 16, 0.0f, load_half(block + 208), scales->step);
  } else if constexpr (F == Family::q2_k) {
    const uint8_t *head = gguf_head<F>(p, index);
    for (int i = 0; i < 16; i++) {
      bytes[i] = head[i] & 15;
      bytes[16 + i] = head[i] >> 4;
    }
    scale_bytes(bytes, 16, 0.0f, load_half(head + 16), scales->step);
    scale_bytes(bytes + 16, 16, 0.0f, load_half(head + 18), scales->minimum);
  } else if constexpr (F == Family::q3_k) {
    const uint8_t *head = gguf_head<F>(p, index);
    q3_k_scales(head, bytes);
    scale_bytes(bytes, 16, 32.0f, load_half(head + 12), scales->step);
  } else if constexpr (F == Family::iq4_xs) {
    const uint8_t *head = gguf_head<F>(p, index);
    uint8_t scale[8];
    iq4_xs_scales(head, scale);
    for (int i = 0; i < 16; i++) bytes[i] = scale[i / 2];
    scale_bytes(bytes, 16, 32.0f, load_half(head), scales->step);
  } else {
    const Simd::V step = Simd::set1(load_half(p.scale + 2 * index));
    for (int i = 0; i < 16; i += Simd::width) Simd::store(scales->step + i, step);
  }
}

// Writes the codes of part Sub, of eight, of a long block.
template <Family F, int Sub> AIRK_INLINE void long_codes(const PackedView &p, uint64_t index, Bytes32 *code) {
  Bytes32 low, high = {};
  if constexpr (F == Family::q4_k || F == Family::q5_k) {
    const uint8_t *block = p.code + index * (F == Family::q4_k ? q4_k_bytes : q5_k_bytes);
    std::memcpy(&low, block + (F == Family::q4_k ? 16 : 48) + Sub / 2 * 32, 32);
    low = low >> (4 * (Sub % 2)) & 15 * each_byte;
    if constexpr (F == Family::q5_k) {
      std::memcpy(&high, block + 16, 32);
      low |= (high >> Sub & each_byte) << 4;
    }
    *code = low;
  } else if constexpr (F == Family::q6_k) {
    constexpr int half = Sub / 4, run = Sub % 4;
    const uint8_t *block = p.code + index * q6_k_bytes;
    std::memcpy(&low, block + 64 * half + 32 * (run % 2), 32);
    std::memcpy(&high, block + 128 + 32 * half, 32);
    low = (low >> (run < 2 ? 0 : 4) & 15 * each_byte) | (high >> (2 * run) & 3 * each_byte) << 4;
    *code = reinterpret_cast<Bytes32>(reinterpret_cast<Signed32>(low) - 32);
  } else {
    std::memcpy(&low, gguf_codes<F>(p, index) + 32 * (Sub / 4), 32);
    low = low >> (2 * (Sub % 4)) & 3 * each_byte;
    if constexpr (F == Family::q3_k) {
      std::memcpy(&high, gguf_high<F>(p, index), 32);
      low |= (high >> Sub & each_byte) << 2;
      low = reinterpret_cast<Bytes32>(reinterpret_cast<Signed32>(low) - 4);
    }
    if constexpr (F == Family::tq2_0) low = reinterpret_cast<Bytes32>(reinterpret_cast<Signed32>(low) - 1);
    *code = low;
  }
}

template <Family F, int Sub> AIRK_INLINE void decode_long_part(const PackedView &p, uint64_t index, const BlockScales &scales, float *out) {
  constexpr bool minimum = F == Family::q4_k || F == Family::q5_k || F == Family::q2_k;
  if constexpr (F == Family::iq4_xs) {
    alignas(64) static const float values[16] = AIRK_IQ4_NL_VALUES;
    look_up_32_scaled(gguf_codes<F>(p, index) + 16 * Sub, Simd::table(values), scales.step[2 * Sub], scales.step[2 * Sub + 1], out + 32 * Sub);
  } else {
    Bytes32 code;
    long_codes<F, Sub>(p, index, &code);
    scale_codes_32<minimum>(&code, scales.step + 2 * Sub, scales.minimum + 2 * Sub, out + 32 * Sub);
  }
}

// out [256] = the weights of a long block.
template <Family F> AIRK_INLINE void decode_long_block(const PackedView &p, uint64_t index, float *out) {
  BlockScales scales;
  block_scales<F>(p, index, &scales);
  decode_long_part<F, 0>(p, index, scales, out);
  decode_long_part<F, 1>(p, index, scales, out);
  decode_long_part<F, 2>(p, index, scales, out);
  decode_long_part<F, 3>(p, index, scales, out);
  decode_long_part<F, 4>(p, index, scales, out);
  decode_long_part<F, 5>(p, index, scales, out);
  decode_long_part<F, 6>(p, index, scales, out);
  decode_long_part<F, 7>(p, index, scales, out);
}

template <Family F> void decode_long_gguf(const Weight &w, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  constexpr uint64_t parts = super_block / block_cols;
  const uint64_t first = row * (w.blocks / parts);
  for (uint64_t b = block_begin; b < block_end;) {
    const uint64_t end = (b / parts + 1) * parts < block_end ? (b / parts + 1) * parts : block_end, count = (end - b) * block_cols;
    if (count == super_block) {
      decode_long_block<F>(w.packed, first + b / parts, out);
    } else {
      alignas(64) float whole[super_block];
      decode_long_block<F>(w.packed, first + b / parts, whole);
      std::memcpy(out, whole + b % parts * block_cols, count * sizeof(float));
    }
    out += count;
    b = end;
  }
}

// One of the types whose codes are points of tables: 32 columns of them.
template <Family F> AIRK_INLINE void decode_grid_32(const PackedView &p, uint64_t index, int sub, float *out) {
  const float step[2] = {gguf_step<F>(p, index, sub, 0), gguf_step<F>(p, index, sub, 1)}, minimum[2] = {0.0f, 0.0f};
  int8_t code[32];
  for (int group = 0; group < 4; group++) {
    const GridGroup point = gguf_grid<F>(p, index, sub, group);
    for (int j = 0; j < 8; j++) code[8 * group + j] = static_cast<int8_t>(grid_code<F>(point, j));
  }
  scale_codes_32<false>(code, step, minimum, out);
}

template <Family F> void decode_gguf(const Weight &w, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  if constexpr (is_short_gguf<F>) {
    for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) decode_short_gguf<F>(w.packed, row * w.blocks + b, out);
  } else if constexpr (is_grid_gguf<F>) {
    constexpr uint64_t parts = super_block / block_cols;
    for (uint64_t b = block_begin; b < block_end; b++, out += block_cols)
      decode_grid_32<F>(w.packed, row * (w.blocks / parts) + b / parts, static_cast<int>(b % parts), out);
  } else {
    decode_long_gguf<F>(w, row, block_begin, block_end, out);
  }
}

}  // namespace
}  // namespace airk
