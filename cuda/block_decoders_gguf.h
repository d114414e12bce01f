// Decoders of whole blocks, as block_decoders.h has them, for the families of cpu/gguf_blocks.h. Every product of a step and a code is exact, so that
// fused with a minimum it is rounded once all the same.
#pragma once

#include "block_decoders.h"

namespace airk {

// Four bits, from the lowest on, as the bit `bit` of four bytes.
__device__ __forceinline__ unsigned spread_bits(unsigned four, int bit) { return ((four & 15u) * 0x00204081u & 0x01010101u) << bit; }

// q4_1, q5_0, q5_1: a block has one step and one minimum.
template <Family F> struct ShortGgufDecoder {
  static constexpr bool kUsesTable = false;
  static constexpr bool kFifth = F != Family::q4_1, kMinimum = F != Family::q5_0;
  struct Raw {
    unsigned code[4], high;
    unsigned numbers;  // step, minimum
  };
  PackedView view;
  uint64_t blocks;

  __device__ ShortGgufDecoder(const Weight &w, float *) : view(w.packed), blocks(w.blocks) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint64_t index = row * blocks + block;
    set_words(raw.code, load_streaming_16(view.code + index * 16));
    if constexpr (kFifth) raw.high = __ldg(reinterpret_cast<const unsigned *>(view.high) + index);
    raw.numbers = kMinimum ? __ldg(reinterpret_cast<const unsigned *>(view.scale) + index) : __ldg(reinterpret_cast<const unsigned short *>(view.scale) + index);
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    const unsigned word = pick(raw.code, i);
    unsigned first = word & 0x0f0f0f0fu, last = (word >> 4) & 0x0f0f0f0fu;
    if constexpr (kFifth) first |= spread_bits(raw.high >> (4 * i), 4), last |= spread_bits(raw.high >> (16 + 4 * i), 4);
    bytes_minus(first, kByteBias + (kMinimum ? 0.0f : 16.0f), v);
    bytes_minus(last, kByteBias + (kMinimum ? 0.0f : 16.0f), v + 4);
    const float step = device_f16(static_cast<uint16_t>(raw.numbers)), minimum = kMinimum ? device_f16(static_cast<uint16_t>(raw.numbers >> 16)) : 0.0f;
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = kMinimum ? fmaf(step, v[j], minimum) : __fmul_rn(step, v[j]);
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};
template <> struct BlockDecoder<Family::q4_1> : ShortGgufDecoder<Family::q4_1> {
  using ShortGgufDecoder::ShortGgufDecoder;
};
template <> struct BlockDecoder<Family::q5_0> : ShortGgufDecoder<Family::q5_0> {
  using ShortGgufDecoder::ShortGgufDecoder;
};
template <> struct BlockDecoder<Family::q5_1> : ShortGgufDecoder<Family::q5_1> {
  using ShortGgufDecoder::ShortGgufDecoder;
};

// q2_k, q3_k, tq2_0: two bits of a code, four parts of 32 columns a byte.
template <Family F> struct TwoBitDecoder {
  static constexpr bool kUsesTable = false;
  static constexpr bool kThird = F == Family::q3_k, kMinimum = F == Family::q2_k;
  static constexpr float kBias = F == Family::q3_k ? 4.0f : F == Family::tq2_0 ? 1.0f : 0.0f;
  struct Raw {
    unsigned low[8], high[kThird ? 8 : 1];
    float step[2], minimum[2];  // of either half
    int sub;
  };
  PackedView view;
  uint64_t super_blocks;

  __device__ TwoBitDecoder(const Weight &w, float *) : view(w.packed), super_blocks(w.blocks / 8) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint64_t index = row * super_blocks + block / 8;
    raw.sub = static_cast<int>(block % 8);
    const uint8_t *low = gguf_codes<F>(view, index) + 32 * (raw.sub / 4);
    set_words(raw.low, load_streaming_16(low));
    set_words(raw.low + 4, load_streaming_16(low + 16));
    if constexpr (kThird) {
      set_words(raw.high, load_streaming_16(gguf_high<F>(view, index)));
      set_words(raw.high + 4, load_streaming_16(gguf_high<F>(view, index) + 16));
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      raw.step[half] = gguf_step<F>(view, index, raw.sub, half);
      if constexpr (kMinimum) raw.minimum[half] = gguf_minimum<F>(view, index, raw.sub, half);
    }
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      unsigned bytes = (pick(raw.low + 4 * half, i) >> (2 * (raw.sub & 3))) & 0x03030303u;
      if constexpr (kThird) bytes |= ((pick(raw.high + 4 * half, i) >> raw.sub) & 0x01010101u) << 2;
      float *to = v + 4 * half;
      bytes_minus(bytes, kByteBias + kBias, to);
#pragma unroll
      for (int j = 0; j < 4; j++) to[j] = kMinimum ? fmaf(raw.step[half], to[j], -raw.minimum[half]) : __fmul_rn(raw.step[half], to[j]);
    }
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};
template <> struct BlockDecoder<Family::q2_k> : TwoBitDecoder<Family::q2_k> {
  using TwoBitDecoder::TwoBitDecoder;
};
template <> struct BlockDecoder<Family::q3_k> : TwoBitDecoder<Family::q3_k> {
  using TwoBitDecoder::TwoBitDecoder;
};
template <> struct BlockDecoder<Family::tq2_0> : TwoBitDecoder<Family::tq2_0> {
  using TwoBitDecoder::TwoBitDecoder;
};

// iq4_xs: 32 columns as of iq4_nl, their step of 6 bits.
template <> struct BlockDecoder<Family::iq4_xs> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned code[4];
    float scale;
  };
  PackedView view;
  uint64_t super_blocks;

  __device__ BlockDecoder(const Weight &w, float *) : view(w.packed), super_blocks(w.blocks / 8) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint64_t index = row * super_blocks + block / 8;
    const int sub = static_cast<int>(block % 8);
    set_words(raw.code, load_streaming_16(gguf_codes<Family::iq4_xs>(view, index) + 16 * sub));
    raw.scale = gguf_step<Family::iq4_xs>(view, index, sub, 0);
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    constexpr unsigned table[4] = {table_word<Family::iq4_nl>(0), table_word<Family::iq4_nl>(1), table_word<Family::iq4_nl>(2), table_word<Family::iq4_nl>(3)};
    unsigned low, high;
    look_up_eight(table[0], table[1], table[2], table[3], pick(raw.code, i), &low, &high);
    bytes_to_floats(low, v);
    bytes_to_floats(high, v + 4);
  }
  __device__ float scale(const Raw &raw) const { return raw.scale; }
};

// IQ types whose codes are points: looked up as they are asked for, eight columns at a time, of which a part takes four.
template <Family F> struct GridDecoder {
  static constexpr bool kUsesTable = false;
  struct Raw {
    uint64_t index;
    int sub;
    float step[2];  // of either half; 0 where not valid
  };
  PackedView view;
  uint64_t super_blocks;

  __device__ GridDecoder(const Weight &w, float *) : view(w.packed), super_blocks(w.blocks / 8) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    raw.index = row * super_blocks + block / 8;
    raw.sub = static_cast<int>(block % 8);
    raw.step[0] = gguf_step<F>(view, raw.index, raw.sub, 0);
    raw.step[1] = gguf_step<F>(view, raw.index, raw.sub, 1);
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const GridGroup group = gguf_grid<F>(view, raw.index, raw.sub, 2 * half + i / 2);
#pragma unroll
      for (int j = 0; j < 4; j++) v[4 * half + j] = __fmul_rn(raw.step[half], static_cast<float>(grid_code<F>(group, 4 * (i & 1) + j)));
    }
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};
template <> struct BlockDecoder<Family::iq2_xxs> : GridDecoder<Family::iq2_xxs> {
  using GridDecoder::GridDecoder;
};
template <> struct BlockDecoder<Family::iq2_xs> : GridDecoder<Family::iq2_xs> {
  using GridDecoder::GridDecoder;
};
template <> struct BlockDecoder<Family::iq2_s> : GridDecoder<Family::iq2_s> {
  using GridDecoder::GridDecoder;
};
template <> struct BlockDecoder<Family::iq3_xxs> : GridDecoder<Family::iq3_xxs> {
  using GridDecoder::GridDecoder;
};
template <> struct BlockDecoder<Family::iq3_s> : GridDecoder<Family::iq3_s> {
  using GridDecoder::GridDecoder;
};
template <> struct BlockDecoder<Family::iq1_s> : GridDecoder<Family::iq1_s> {
  using GridDecoder::GridDecoder;
};
template <> struct BlockDecoder<Family::iq1_m> : GridDecoder<Family::iq1_m> {
  using GridDecoder::GridDecoder;
};

}  // namespace airk
