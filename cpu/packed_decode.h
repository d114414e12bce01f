// Rows of packed formats as float32, over the vector type of exact.h. Four-bit codes are looked up in a table that is scaled and rounded
// once a group, so that a weight costs no arithmetic of its own; the bits are those of packed_element.h.
#pragma once

#include <cstring>

#include "kernels.h"
#include "packed_element.h"

namespace airk {
namespace {

// Writes 32 weights, of which the first 16 columns are the low nibbles and the last 16 the high nibbles of code.
AIRK_INLINE void look_up_32(const uint8_t *code, const Simd::Table &first, const Simd::Table &last, float *out) {
  Simd::Index index[2];
  Simd::V v[32 / Simd::width];
  Simd::q4o_index(code, index);
  Simd::lookup(first, index[0], v);
  Simd::lookup(last, index[1], v + 16 / Simd::width);
  for (int i = 0; i < 32 / Simd::width; i++) Simd::store(out + i * Simd::width, v[i]);
}

// Writes 32 weights: looked up, then each half times its scale.
AIRK_INLINE void look_up_32_scaled(const uint8_t *code, const Simd::Table &table, float first, float last, float *out) {
  Simd::Index index[2];
  Simd::V v[32 / Simd::width];
  Simd::q4o_index(code, index);
  Simd::lookup(table, index[0], v);
  Simd::lookup(table, index[1], v + 16 / Simd::width);
  const Simd::V scale[2] = {Simd::set1(first), Simd::set1(last)};
  for (int i = 0; i < 32 / Simd::width; i++) Simd::store(out + i * Simd::width, v[i] * scale[i / (16 / Simd::width)]);
}

}  // namespace
}  // namespace airk

#include "gguf_decode.h"

namespace airk {
namespace {

// Rounds 16 floats as to_bf16 does, without its branch.
AIRK_INLINE void round_16_to_bf16(float *values) {
  typedef uint32_t Bits __attribute__((vector_size(64)));
  Bits bits;
  std::memcpy(&bits, values, sizeof bits);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u, quiet = (bits | 0x400000u) & 0xffff0000u;
  const Bits is_nan = reinterpret_cast<Bits>((bits & 0x7fffffffu) > 0x7f800000u);
  bits = (is_nan & quiet) | (~is_nan & rounded);
  std::memcpy(values, &bits, sizeof bits);
}

// Rounds 16 floats to float16 and back, as to_f16 does.
AIRK_INLINE void round_16_to_f16(float *values) {
  typedef uint32_t Bits __attribute__((vector_size(64)));
  typedef float Floats __attribute__((vector_size(64)));
  Bits bits;
  std::memcpy(&bits, values, sizeof bits);
  const Bits sign = bits & 0x80000000u, magnitude = bits & 0x7fffffffu;
  const Bits rounded = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & 0xffffe000u;
  const Bits is_nan = reinterpret_cast<Bits>(magnitude > 0x7f800000u), is_large = reinterpret_cast<Bits>(rounded >= 0x47800000u);
  const Bits is_small = reinterpret_cast<Bits>(magnitude < 0x38800000u);
  const Bits normal = (is_nan & 0x7fc00000u) | (~is_nan & ((is_large & 0x7f800000u) | (~is_large & rounded)));
  // A float16 below 2^-14 is a multiple of 2^-24, the spacing of float32 above 0.5.
  const Bits small = reinterpret_cast<Bits>((reinterpret_cast<Floats>(magnitude) + 0.5f) - 0.5f);
  bits = sign | (is_small & small) | (~is_small & normal);
  std::memcpy(values, &bits, sizeof bits);
}

// (code - zero) * scale for code = 0 .. 15.
AIRK_INLINE Simd::Table offset_table(float scale, float zero) {
  alignas(64) static const float codes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  alignas(64) float table[16];
  const Simd::V s = Simd::set1(scale), z = Simd::set1(zero);
  for (int i = 0; i < 16; i += Simd::width) Simd::store(table + i, (Simd::load(codes + i) - z) * s);
  return Simd::table(table);
}

template <Family F> void decode_elements(const Weight &w, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  for (uint64_t col = block_begin * block_cols; col < block_end * block_cols; col++, out++)
    *out = col < w.cols ? packed_element<F>(w.packed, w.cols, row, col) : 0.0f;
}

// bnb4 where a block of 32 columns starts a byte and lies in one block of the format's.
void decode_bnb4(const Weight &w, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  const PackedView &p = w.packed;
  const int32_t shift = p.packing.group_shift;
  const uint64_t first = row * w.cols;
  uint64_t known = ~uint64_t{0};
  Simd::Table table = Simd::table(p.map);
  for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
    const uint64_t element = first + b * block_cols, block = element >> shift;
    if (block != known) {
      alignas(64) float values[16];
      const Simd::V s = Simd::set1(bnb4_absmax(p, known = block));
      for (int i = 0; i < 16; i += Simd::width) Simd::store(values + i, Simd::load(p.map + i) * s);
      if (p.packing.type == AIRK_BF16) {
        round_16_to_bf16(values);
      } else if (p.packing.type == AIRK_F16) {
        round_16_to_f16(values);
      }
      table = Simd::table(values);
    }
    Simd::Index index[2];
    Simd::V v[32 / Simd::width];
    Simd::nf4_index(p.code + element / 2, index);
    Simd::lookup(table, index[0], v);
    Simd::lookup(table, index[1], v + 16 / Simd::width);
    for (int i = 0; i < 32 / Simd::width; i++) Simd::store(out + i * Simd::width, v[i]);
  }
}

// e4m3 by way of float16, whose exponent's bias is 8 more.
AIRK_INLINE void decode_e4m3_32(const uint8_t *code, float scale, float *out) {
  uint16_t half[32];
  uint8_t largest = 0;
  for (int i = 0; i < 32; i++) {
    const uint8_t magnitude = code[i] & 0x7f;
    largest = magnitude > largest ? magnitude : largest;
    half[i] = static_cast<uint16_t>((code[i] & 0x80) << 8 | magnitude << 7);
  }
  if (__builtin_expect(largest == 0x7f, 0)) {
    for (int i = 0; i < 32; i++) out[i] = from_e4m3(code[i]) * scale;
    return;
  }
  const Simd::V bias = Simd::set1(256.0f), s = Simd::set1(scale);
  for (int i = 0; i < 32; i += Simd::width) Simd::store(out + i, Simd::load_f16(reinterpret_cast<const uint8_t *>(half + i)) * bias * s);
}

// Codes [0, 32) of a block whose columns have scales of their own. load_scale(group) gives one of the row's.
template <class Code, class Scale>
AIRK_INLINE void decode_ordered(const PackedView &p, uint64_t row, uint64_t col, uint64_t cols, const Code &code, const Scale &scale, float *out) {
  const bool zeros = p.packing.zero, eight = p.packing.family == Family::int8;
  for (int i = 0; i < 32; i++) {
    const uint64_t group = group_of(p, row, col + static_cast<uint64_t>(i) < cols ? col + static_cast<uint64_t>(i) : cols - 1);
    const float zero = !zeros ? (eight ? 0.0f : 8.0f)
                              : eight ? static_cast<float>(static_cast<int16_t>(load_u16(p.zero + 2 * group))) : static_cast<float>(p.zero[group]);
    out[i] = (code(i) - zero) * scale(group);
  }
}

void decode_ordered_row(const Weight &w, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  const PackedView &p = w.packed;
  const auto blocks = [&](const auto &scale) {
    for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
      const uint64_t block = row * w.blocks + b, col = b * block_cols;
      if (p.packing.family == Family::int4) {
        const uint8_t *code = p.code + block * 16;
        decode_ordered(p, row, col, w.cols, [&](int i) { return static_cast<float>(i < 16 ? code[i] & 15 : code[i - 16] >> 4); }, scale, out);
      } else {
        const int8_t *code = reinterpret_cast<const int8_t *>(p.code) + block * 32;
        decode_ordered(p, row, col, w.cols, [&](int i) { return static_cast<float>(code[i]); }, scale, out);
      }
    }
  };
  if (p.packing.type == AIRK_F16) return blocks([&](uint64_t group) { return load_half(p.scale + 2 * group); });
  if (p.packing.type == AIRK_BF16) return blocks([&](uint64_t group) { return from_bf16(load_u16(p.scale + 2 * group)); });
  blocks([&](uint64_t group) { return load_f32(p.scale + 4 * group); });
}

// Writes whole blocks of 32 columns of a row; weights beyond the last column are zero.
void decode_packed(const Weight &w, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  alignas(64) static const float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  alignas(64) static const float iq4_nl[16] = AIRK_IQ4_NL_VALUES;
  const PackedView &p = w.packed;
  const int32_t type = p.packing.type, shift = p.packing.group_shift;
  const auto group_at = [&](uint64_t r, uint64_t b) { return group_of(p, r, b * block_cols); };
  float *const begin = out;
  switch (p.packing.family) {
    case Family::bnb4:
      if (w.cols % block_cols == 0 && shift >= 5) return decode_bnb4(w, row, block_begin, block_end, out);
      return decode_elements<Family::bnb4>(w, row, block_begin, block_end, out);
    case Family::int4: {
      if (p.packing.order) {
        decode_ordered_row(w, row, block_begin, block_end, out);
        break;
      }
      uint64_t known = ~uint64_t{0};
      Simd::Table table = Simd::table(e2m1);
      for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
        const uint64_t group = group_at(row, b);
        if (group != known) table = offset_table(load_scale(p.scale, known = group, type), p.packing.zero ? p.zero[group] : 8.0f);
        look_up_32(p.code + (row * w.blocks + b) * 16, table, table, out);
      }
      break;
    }
    case Family::int8:
      if (p.packing.order) {
        decode_ordered_row(w, row, block_begin, block_end, out);
        break;
      }
      for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
        const uint64_t group = group_at(row, b);
        const float zero = p.packing.zero ? static_cast<int16_t>(load_u16(p.zero + 2 * group)) : 0.0f;
        const Simd::V z = Simd::set1(zero), s = Simd::set1(load_scale(p.scale, group, type)), step = Simd::set1(scb_step);
        const int8_t *code = reinterpret_cast<const int8_t *>(p.code) + (row * w.blocks + b) * 32;
        for (int i = 0; i < 32; i += Simd::width) {
          const Simd::V v = (Simd::load_i8(code + i) - z) * s;
          Simd::store(out + i, type == type_scb ? v * step : v);
        }
      }
      break;
    case Family::fp8:
      for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
        decode_e4m3_32(p.code + (row * w.blocks + b) * 32, load_f32(p.scale + 4 * group_at(row >> p.packing.second_shift, b)), out);
      }
      break;
    case Family::mxfp4:
    case Family::iq4_nl: {
      const bool mx = p.packing.family == Family::mxfp4;
      const Simd::Table table = Simd::table(mx ? e2m1 : iq4_nl);
      for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
        const uint64_t block = row * w.blocks + b;
        const float scale = mx ? from_e8m0(p.scale[block]) : load_half(p.scale + 2 * block);
        look_up_32_scaled(p.code + block * 16, table, scale, scale, out);
      }
      break;
    }
    case Family::nvfp4: {
      const Simd::Table table = Simd::table(e2m1);
      for (uint64_t b = block_begin; b < block_end; b++, out += block_cols) {
        const uint64_t block = row * w.blocks + b;
        const float first = nvfp4_scale(p, p.scale[2 * block]), last = nvfp4_scale(p, p.scale[2 * block + 1]);
        look_up_32_scaled(p.code + block * 16, table, first, last, out);
      }
      break;
    }
    case Family::q4_k:
      decode_gguf<Family::q4_k>(w, row, block_begin, block_end, out);
      break;
    case Family::q5_k:
      decode_gguf<Family::q5_k>(w, row, block_begin, block_end, out);
      break;
    case Family::q6_k:
      decode_gguf<Family::q6_k>(w, row, block_begin, block_end, out);
      break;
    case Family::q4_1:
      decode_gguf<Family::q4_1>(w, row, block_begin, block_end, out);
      break;
    case Family::q5_0:
      decode_gguf<Family::q5_0>(w, row, block_begin, block_end, out);
      break;
    case Family::q5_1:
      decode_gguf<Family::q5_1>(w, row, block_begin, block_end, out);
      break;
    case Family::q2_k:
      decode_gguf<Family::q2_k>(w, row, block_begin, block_end, out);
      break;
    case Family::q3_k:
      decode_gguf<Family::q3_k>(w, row, block_begin, block_end, out);
      break;
    case Family::iq4_xs:
      decode_gguf<Family::iq4_xs>(w, row, block_begin, block_end, out);
      break;
    case Family::tq2_0:
      decode_gguf<Family::tq2_0>(w, row, block_begin, block_end, out);
      break;
    case Family::iq2_xxs:
      decode_gguf<Family::iq2_xxs>(w, row, block_begin, block_end, out);
      break;
    case Family::iq2_xs:
      decode_gguf<Family::iq2_xs>(w, row, block_begin, block_end, out);
      break;
    case Family::iq2_s:
      decode_gguf<Family::iq2_s>(w, row, block_begin, block_end, out);
      break;
    case Family::iq3_xxs:
      decode_gguf<Family::iq3_xxs>(w, row, block_begin, block_end, out);
      break;
    case Family::iq3_s:
      decode_gguf<Family::iq3_s>(w, row, block_begin, block_end, out);
      break;
    case Family::iq1_s:
      decode_gguf<Family::iq1_s>(w, row, block_begin, block_end, out);
      break;
    case Family::iq1_m:
      decode_gguf<Family::iq1_m>(w, row, block_begin, block_end, out);
      break;
  }
  // The last block's missing columns hold codes that need not mean zero.
  if (block_end == w.blocks && w.cols % block_cols != 0)
    for (uint64_t col = w.cols; col < w.blocks * block_cols; col++) begin[col - block_begin * block_cols] = 0.0f;
}

}  // namespace
}  // namespace airk
