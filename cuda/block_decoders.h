// Decoders that read a whole block of 32 columns at once, 16 bytes a load: of packed formats and of dense rows, for products of few tokens.
//
// They are made for weights that lie as takes_blocks() says; all others are decoded by weights.h, one by one. A block's words are kept as
// they were read and unpacked part by part, so that a warp has the blocks of all its rows under way before it waits for one. Values have the
// bits of cpu/packed_element.h but where a whole block shares a scale and the product with it is exact: there the scale is multiplied into the sum.
//
// Tables of 16 values lie in registers and are looked up with byte_perm, four codes at a time, as q4o's: thirteen integer instructions turn eight
// codes into bytes. A shuffle or a load from shared memory takes one for each code, beside its address, in the unit that also brings the activations.
#pragma once

#include "weights.h"

namespace airk {

// Four bytes u as floats u - bias, where bias is 2^23 + a whole number: exact.
__device__ __forceinline__ void bytes_minus(unsigned bytes, float bias, float *v) {
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7540u + i)) - bias;
}
constexpr float kByteBias = 8388608.0f;

// Four bytes, each 2 v + 128, as floats v: beside 2^22 a float's last bit is a half.
__device__ __forceinline__ void halves_to_floats(unsigned bytes, float *v) {
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = __uint_as_float(__byte_perm(bytes, 0x4a800000u, 0x7640u + i)) - 4194368.0f;
}

__device__ __forceinline__ void scale_eight(float *v, float first, float last) {
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] = __fmul_rn(v[j], j < 4 ? first : last);
}

__device__ __forceinline__ void set_words(unsigned *words, const uint4 &four) {
  words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
}

__device__ __forceinline__ float typed_scale(const uint8_t *scale, uint64_t index, int32_t type) {
  if (type == AIRK_F32 || type == type_scb) return reinterpret_cast<const float *>(scale)[index];
  const uint16_t bits = reinterpret_cast<const uint16_t *>(scale)[index];
  return type == AIRK_F16 ? device_f16(bits) : device_bf16(bits);
}

// Which of a row's scales a block has.
__device__ __forceinline__ uint64_t group_of_block(const PackedView &p, uint64_t row, uint64_t block) {
  return row * p.groups + (p.packing.group_shift == group_row ? 0 : block >> (p.packing.group_shift - 5));
}

template <Family F> struct BlockDecoder;

template <> struct BlockDecoder<Family::int4> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned code[4];
    float scale, bias;
  };
  PackedView view;
  uint64_t blocks;

  __device__ BlockDecoder(const Weight &w, float *) : view(w.packed), blocks(w.blocks) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    set_words(raw.code, load_streaming_16(view.code + (row * blocks + block) * 16));
    const uint64_t group = group_of_block(view, row, block);
    raw.scale = typed_scale(view.scale, group, view.packing.type);
    raw.bias = kByteBias + (view.packing.zero ? static_cast<float>(view.zero[group]) : 8.0f);
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    const unsigned word = pick(raw.code, i);
    bytes_minus(word & 0x0f0f0f0fu, raw.bias, v);
    bytes_minus((word >> 4) & 0x0f0f0f0fu, raw.bias, v + 4);
    scale_eight(v, raw.scale, raw.scale);
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

template <> struct BlockDecoder<Family::int8> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned code[8];
    float scale, bias;
  };
  PackedView view;
  uint64_t blocks;

  __device__ BlockDecoder(const Weight &w, float *) : view(w.packed), blocks(w.blocks) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint8_t *code = view.code + (row * blocks + block) * 32;
    set_words(raw.code, load_streaming_16(code));
    set_words(raw.code + 4, load_streaming_16(code + 16));
    const uint64_t group = group_of_block(view, row, block);
    raw.scale = typed_scale(view.scale, group, view.packing.type);
    // Codes are taken as code + 128.
    raw.bias = kByteBias + 128.0f + (view.packing.zero ? static_cast<float>(reinterpret_cast<const int16_t *>(view.zero)[group]) : 0.0f);
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    bytes_minus(pick(raw.code, i) ^ 0x80808080u, raw.bias, v);
    bytes_minus(pick(raw.code + 4, i) ^ 0x80808080u, raw.bias, v + 4);
    scale_eight(v, raw.scale, raw.scale);
    if (view.packing.type == type_scb) scale_eight(v, scb_step, scb_step);
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

template <> struct BlockDecoder<Family::fp8> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned code[8];
    float scale;
  };
  PackedView view;
  uint64_t blocks, cols;

  __device__ BlockDecoder(const Weight &w, float *) : view(w.packed), blocks(w.blocks), cols(w.cols) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint8_t *code = view.code + (row * blocks + block) * 32;
    set_words(raw.code, load_streaming_16(code));
    set_words(raw.code + 4, load_streaming_16(code + 16));
    raw.scale = reinterpret_cast<const float *>(view.scale)[group_of_block(view, row >> view.packing.second_shift, block)];
    // What lies beyond the last column may be NaN, which zero times it would not hide.
    const int columns = static_cast<int>(min(cols - block * 32, uint64_t{32}));
    if (columns == 32) return raw;
#pragma unroll
    for (int k = 0; k < 8; k++) {
      const int rest = columns - 4 * k;
      raw.code[k] = rest >= 4 ? raw.code[k] : rest <= 0 ? 0u : raw.code[k] & ((1u << (8 * rest)) - 1u);
    }
    return raw;
  }
  // By way of float16, whose exponent's bias is 8 more. 0x7f and 0xff are NaN.
  static __device__ __forceinline__ void four(unsigned word, float scale, float *v) {
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      const unsigned bytes = __byte_perm(word, 0u, pair == 0 ? 0x1404u : 0x3424u);
      const unsigned halves = (bytes & 0x80008000u) | ((bytes & 0x7f007f00u) >> 1);
      v[2 * pair] = __fmul_rn(device_f16(static_cast<uint16_t>(halves)) * 256.0f, scale);
      v[2 * pair + 1] = __fmul_rn(device_f16(static_cast<uint16_t>(halves >> 16)) * 256.0f, scale);
    }
    const unsigned magnitudes = word & 0x7f7f7f7fu;
    if (((magnitudes + 0x01010101u) & 0x80808080u) == 0) return;
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = ((magnitudes >> (8 * j)) & 0x7fu) == 0x7fu ? __uint_as_float(0x7fc00000u) : v[j];
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    four(pick(raw.code, i), raw.scale, v);
    four(pick(raw.code + 4, i), raw.scale, v + 4);
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

// Four-bit codes that stand for 16 values: words of a table of bytes, value + 128, ascending by code.
template <Family F> __host__ __device__ constexpr unsigned table_word(int i) {
  // iq4_nl: AIRK_IQ4_NL_VALUES. The others are e2m1: twice 0 .5 1 1.5 2 3 4 6, then their negatives.
  constexpr float iq4_nl[16] = AIRK_IQ4_NL_VALUES, e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  unsigned word = 0;
  for (int j = 0; j < 4; j++) {
    const float value = F == Family::iq4_nl ? iq4_nl[4 * i + j] : e2m1[4 * i + j];
    word |= static_cast<unsigned>(static_cast<int>(value) + 128) << (8 * j);
  }
  return word;
}

// mxfp4, nvfp4, iq4_nl.
template <Family F> struct TableBlockDecoder {
  static constexpr bool kUsesTable = false;
  static constexpr bool kTwoScales = F == Family::nvfp4;
  struct Raw {
    unsigned code[4];
    float scale, last_scale;  // of columns 0 .. 15 and 16 .. 31
  };
  PackedView view;
  uint64_t blocks, cols;

  __device__ TableBlockDecoder(const Weight &w, float *) : view(w.packed), blocks(w.blocks), cols(w.cols) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint64_t index = row * blocks + block;
    set_words(raw.code, load_streaming_16(view.code + index * 16));
    if constexpr (F == Family::nvfp4) {
      const unsigned both = reinterpret_cast<const uint16_t *>(view.scale)[index];
      raw.scale = nvfp4_scale(view, static_cast<uint8_t>(both));
      // What belongs to no column may be NaN, which zero times it would not hide.
      raw.last_scale = cols - block * 32 > nvfp4_group ? nvfp4_scale(view, static_cast<uint8_t>(both >> 8)) : 0.0f;
    } else if constexpr (F == Family::mxfp4) {
      raw.scale = 0.5f * from_e8m0(view.scale[index]);
    } else {
      raw.scale = device_f16(reinterpret_cast<const uint16_t *>(view.scale)[index]);
    }
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    constexpr unsigned table[4] = {table_word<F>(0), table_word<F>(1), table_word<F>(2), table_word<F>(3)};
    unsigned low, high;
    look_up_eight(table[0], table[1], table[2], table[3], pick(raw.code, i), &low, &high);
    if constexpr (kTwoScales) {
      halves_to_floats(low, v);
      halves_to_floats(high, v + 4);
      scale_eight(v, raw.scale, raw.last_scale);
    } else {
      bytes_to_floats(low, v);
      bytes_to_floats(high, v + 4);
    }
  }
  __device__ float scale(const Raw &raw) const { return kTwoScales ? 1.0f : raw.scale; }
};
template <> struct BlockDecoder<Family::mxfp4> : TableBlockDecoder<Family::mxfp4> {
  using TableBlockDecoder::TableBlockDecoder;
};
template <> struct BlockDecoder<Family::nvfp4> : TableBlockDecoder<Family::nvfp4> {
  using TableBlockDecoder::TableBlockDecoder;
};
template <> struct BlockDecoder<Family::iq4_nl> : TableBlockDecoder<Family::iq4_nl> {
  using TableBlockDecoder::TableBlockDecoder;
};

// The map is float32: it cannot lie in four registers, so that every lane has a copy in shared memory, as nf4 has.
template <> struct BlockDecoder<Family::bnb4> {
  static constexpr bool kUsesTable = true;
  struct Raw {
    unsigned code[4];
    float absmax;
  };
  PackedView view;
  const float *table;
  uint64_t cols;

  __device__ BlockDecoder(const Weight &w, float *shared_table) : view(w.packed), table(shared_table + (threadIdx.x & 31)), cols(w.cols) {
    for (int i = static_cast<int>(threadIdx.x); i < kTableFloats; i += static_cast<int>(blockDim.x)) shared_table[i] = view.map[i / 32];
  }
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint64_t element = row * cols + block * 32, index = element >> view.packing.group_shift;
    set_words(raw.code, load_streaming_16(view.code + element / 2));
    raw.absmax = view.packing.second_shift == not_nested
                     ? reinterpret_cast<const float *>(view.scale)[index]
                     : plus(times(view.nested_map[view.scale[index]], view.nested[index >> view.packing.second_shift]), view.constant[0]);
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      // Two bytes; the high nibble is the even element.
      const unsigned word = pick(raw.code, 2 * half + i / 2) >> (16 * (i & 1));
      v[4 * half] = table[((word >> 4) & 15) * 32];
      v[4 * half + 1] = table[(word & 15) * 32];
      v[4 * half + 2] = table[((word >> 12) & 15) * 32];
      v[4 * half + 3] = table[((word >> 8) & 15) * 32];
    }
    scale_eight(v, raw.absmax, raw.absmax);
    if (view.packing.type == AIRK_BF16) {
#pragma unroll
      for (int j = 0; j < 8; j++) v[j] = __bfloat162float(__float2bfloat16_rn(v[j]));
    } else if (view.packing.type == AIRK_F16) {
#pragma unroll
      for (int j = 0; j < 8; j++) v[j] = __half2float(__float2half_rn(v[j]));
    }
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

// q4_k and q5_k: a header of 16 bytes (two halves, 12 bytes of scales and minima), in q5_k 32 bytes of fifth bits, then the low four bits.
template <Family F> struct KBlockDecoder {
  static constexpr bool kUsesTable = false;
  static constexpr bool kFifth = F == Family::q5_k;
  struct Raw {
    unsigned header[4], low[8], high[kFifth ? 8 : 1];
    int sub;  // which 32 of the 256 columns
  };
  const uint8_t *code;
  uint64_t super_blocks;

  __device__ KBlockDecoder(const Weight &w, float *) : code(w.packed.code), super_blocks(w.blocks / 8) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint8_t *from = code + (row * super_blocks + block / 8) * (kFifth ? q5_k_bytes : q4_k_bytes);
    raw.sub = static_cast<int>(block % 8);
    set_words(raw.header, load_streaming_16(from));
    if constexpr (kFifth) {
      set_words(raw.high, load_streaming_16(from + 16));
      set_words(raw.high + 4, load_streaming_16(from + 32));
    }
    const uint8_t *low = from + (kFifth ? 48 : 16) + raw.sub / 2 * 32;
    set_words(raw.low, load_streaming_16(low));
    set_words(raw.low + 4, load_streaming_16(low + 16));
    return raw;
  }
  // As k_scale_min of cpu/packed_element.h, over words.
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    const int shift = 8 * (raw.sub & 3);
    const unsigned first = raw.header[1] >> shift, second = raw.header[2] >> shift, third = raw.header[3] >> shift;
    const unsigned scale = raw.sub < 4 ? first & 63 : (third & 15) | ((first >> 2) & 0x30);
    const unsigned minimum = raw.sub < 4 ? second & 63 : ((third >> 4) & 15) | ((second >> 2) & 0x30);
    const float step = device_f16(static_cast<uint16_t>(raw.header[0])) * static_cast<float>(scale);
    const float least = device_f16(static_cast<uint16_t>(raw.header[0] >> 16)) * static_cast<float>(minimum);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      unsigned bytes = (pick(raw.low + 4 * half, i) >> (4 * (raw.sub & 1))) & 0x0f0f0f0fu;
      if constexpr (kFifth) bytes |= ((pick(raw.high + 4 * half, i) >> raw.sub) & 0x01010101u) << 4;
      float *to = v + 4 * half;
      bytes_minus(bytes, kByteBias, to);
      // The products are exact: fused, the difference is rounded once all the same.
#pragma unroll
      for (int j = 0; j < 4; j++) to[j] = fmaf(step, to[j], -least);
    }
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};
template <> struct BlockDecoder<Family::q4_k> : KBlockDecoder<Family::q4_k> {
  using KBlockDecoder::KBlockDecoder;
};
template <> struct BlockDecoder<Family::q5_k> : KBlockDecoder<Family::q5_k> {
  using KBlockDecoder::KBlockDecoder;
};

// Blocks of 210 bytes lie on multiples of 2 alone: words are read, and turned by 16 bits where a block lies between two.
template <> struct BlockDecoder<Family::q6_k> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned low[9], high[9];
    unsigned turn;  // bits
    unsigned scales;
    uint16_t step;
    int run;
  };
  const uint8_t *code;
  uint64_t super_blocks;

  __device__ BlockDecoder(const Weight &w, float *) : code(w.packed.code), super_blocks(w.blocks / 8) {}
  // The ninth word ends within the block, and the first begins there or, turned, in the block before.
  static __device__ __forceinline__ void nine_words(const uint8_t *from, unsigned *words) {
    const unsigned *first = reinterpret_cast<const unsigned *>(reinterpret_cast<uintptr_t>(from) & ~uintptr_t{3});
#pragma unroll
    for (int k = 0; k < 9; k++) words[k] = __ldg(first + k);
  }
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint8_t *from = code + (row * super_blocks + block / 8) * q6_k_bytes;
    const int sub = static_cast<int>(block % 8), half = sub / 4;
    raw.run = sub % 4;
    raw.turn = static_cast<unsigned>(reinterpret_cast<uintptr_t>(from) & 2) * 8;
    nine_words(from + 64 * half + 32 * (raw.run & 1), raw.low);
    nine_words(from + 128 + 32 * half, raw.high);
    raw.scales = __ldg(reinterpret_cast<const unsigned short *>(from + 192 + 8 * half + 2 * raw.run));
    raw.step = __ldg(reinterpret_cast<const unsigned short *>(from + 208));
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int k = 4 * half;
      const unsigned low = __funnelshift_r(pick(raw.low + k, i), pick(raw.low + k + 1, i), raw.turn);
      const unsigned high = __funnelshift_r(pick(raw.high + k, i), pick(raw.high + k + 1, i), raw.turn);
      const unsigned bytes = ((low >> (raw.run < 2 ? 0 : 4)) & 0x0f0f0f0fu) | ((high >> (2 * raw.run)) & 0x03030303u) << 4;
      bytes_minus(bytes, kByteBias + 32.0f, v + k);
    }
    const float step = device_f16(raw.step);
    scale_eight(v, step * static_cast<float>(static_cast<int8_t>(raw.scales)), step * static_cast<float>(static_cast<int8_t>(raw.scales >> 8)));
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

// f32, f16, bf16.
template <Format F> struct DenseBlockDecoder {
  static constexpr bool kUsesTable = false;
  static constexpr int kElementBytes = F == Format::f32 ? 4 : 2, kLoads = 32 * kElementBytes / 16;
  struct Raw {
    unsigned word[4 * kLoads];
  };
  const uint8_t *values;
  uint64_t cols;

  __device__ DenseBlockDecoder(const Weight &w, float *) : values(w.dense.values), cols(w.cols) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    Raw raw = {};
    if (!valid) return raw;
    const uint8_t *from = values + (row * cols + block * 32) * kElementBytes;
    // Rows are whole loads: each of them exists or does not.
    const int bytes = static_cast<int>(min(cols - block * 32, uint64_t{32})) * kElementBytes;
#pragma unroll
    for (int k = 0; k < kLoads; k++)
      if (16 * k < bytes) set_words(raw.word + 4 * k, load_streaming_16(from + 16 * k));
    return raw;
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float *to = v + 4 * half;
      if constexpr (F == Format::f32) {
        // Words 4i .. 4i + 3 and 16 further; i is known where the loop over parts is unrolled.
#pragma unroll
        for (int j = 0; j < 4; j++) to[j] = __uint_as_float(raw.word[4 * i + 16 * half + j]);
      } else {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const uint16_t bits = static_cast<uint16_t>(raw.word[2 * i + 8 * half + j / 2] >> (16 * (j & 1)));
          to[j] = F == Format::f16 ? device_f16(bits) : device_bf16(bits);
        }
      }
    }
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

// Whether a weight lies so that blocks can be read 16 bytes at a time (q6_k: 4): it is aligned, no block has two scales of a group, and no
// two rows share a block.
inline bool takes_blocks(const Weight &w) {
  const auto aligned = [](const void *address, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; };
  switch (w.format) {
    case Format::f32:
      return aligned(w.dense.values, 16) && w.cols % 4 == 0;
    case Format::f16:
    case Format::bf16:
      return aligned(w.dense.values, 16) && w.cols % 8 == 0;
    case Format::packed:
      break;
    default:
      return false;
  }
  const Packing &packing = w.packed.packing;
  if (!aligned(w.packed.code, packing.family == Family::q6_k ? 4 : 16)) return false;
  switch (packing.family) {
    case Family::bnb4:
      return w.cols % 32 == 0 && packing.group_shift >= 5;
    case Family::int4:
    case Family::int8:
    case Family::fp8:
      return !packing.order && (packing.group_shift == group_row || packing.group_shift >= 5);
    default:
      return true;
  }
}

}  // namespace airk
