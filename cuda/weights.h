// Device views of weight extents: one Decoder a format turns blocks of 32 columns of a row into float32.
//
// A block is decoded in four parts; part i gives columns 4i .. 4i + 3 and 16 + 4i .. 16 + 4i + 3, since q4o packs element j with
// element 16 + j, so that one 32-bit word of its codes is one part. As in the CPU twin these are "core" weights: without q4o's row
// scale, column scale and outliers. The column scale is multiplied into the activations, the row scale into the sums.
#pragma once

#include "../cpu/formats.h"
#include "../cpu/packed_element.h"
#include "device_error.h"
#include "ptx.h"

namespace airk {

constexpr int kPartColumns = 8;
// Floats of shared memory that a Decoder's table takes: one copy of NF4's 16 values a lane, so that no two lanes meet in a bank.
constexpr int kTableFloats = 16 * 32;

static __device__ const float kDeviceNf4[16] = AIRK_NF4_VALUES;
static __device__ const float kDeviceSixteenths[16] = AIRK_POWERS_OF_A_SIXTEENTH;

// As column_scale_value on the host, to the bit: a power of two is added to the exponent.
__device__ __forceinline__ float device_column_scale(uint8_t u) {
  return __int_as_float(__float_as_int(kDeviceSixteenths[u & 15]) + ((u >> 4) - 8) * (1 << 23));
}

__device__ __forceinline__ float device_bf16(uint16_t bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
__device__ __forceinline__ float device_f16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

// Row r's factor on the finished sums.
__device__ __forceinline__ float row_scale_of(const Weight &w, uint64_t row) {
  return w.format == Format::q4o ? device_bf16(w.q4o.row_scale[row]) : 1.0f;
}
// Column c's factor on the activations.
__device__ __forceinline__ float column_scale_of(const Weight &w, uint64_t col) {
  return w.format == Format::q4o ? device_column_scale(w.q4o.column_scale[col]) : 1.0f;
}

// The outliers [begin, end) of a row of q4o. Empty, and reported, where the sections contradict themselves.
__device__ __forceinline__ void device_outliers(const Weight &w, uint64_t row, DeviceError *error, OutlierUser user, uint64_t *begin,
                                                uint64_t *end) {
  const uint64_t next = row + 1;
  *begin = uint64_t{w.q4o.outlier_base[row / outlier_group]} + w.q4o.outlier_start[row];
  *end = next == w.rows ? w.outliers : uint64_t{w.q4o.outlier_base[next / outlier_group]} + w.q4o.outlier_start[next];
  if (*begin <= *end && *end <= w.outliers) return;
  report(error, Complaint::outliers, static_cast<long long>(row), user, 0);
  *begin = *end = 0;
}

// Four bytes, each v + 128, as floats v: 2^23 + u is a float whose low byte is u.
__device__ __forceinline__ void bytes_to_floats(unsigned bytes, float *v) {
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7540u + i)) - 8388736.0f;
}

// Looks the eight nibbles of a word up in a table of 16 bytes: low = those of the four low nibbles, high = of the high ones. Four at a time:
// the low three bits of each pick a byte of either half of the table, the fourth the half.
__device__ __forceinline__ void look_up_eight(unsigned t0, unsigned t1, unsigned t2, unsigned t3, unsigned word, unsigned *low, unsigned *high) {
  const unsigned index = word & 0x77777777u, half = ((word >> 1) & 0x44444444u) | 0x32103210u;
  const unsigned first = __byte_perm(__byte_perm(t0, t1, index), __byte_perm(t2, t3, index), half);
  const unsigned second = __byte_perm(__byte_perm(t0, t1, index >> 16), __byte_perm(t2, t3, index >> 16), half >> 16);
  // A byte has two nibbles: even bytes of both words belong to the low ones.
  *low = __byte_perm(first, second, 0x6420);
  *high = __byte_perm(first, second, 0x7531);
}

__device__ __forceinline__ uint4 load_words(const void *from, bool aligned) {
  if (aligned) return load_streaming_16(from);
  const unsigned *word = static_cast<const unsigned *>(from);
  return make_uint4(word[0], word[1], word[2], word[3]);
}

// words[i] of four; an array that is indexed by a variable would have to lie in memory.
__device__ __forceinline__ unsigned pick(const unsigned *words, int i) {
  const unsigned low = i & 1 ? words[1] : words[0], high = i & 1 ? words[3] : words[2];
  return i & 2 ? high : low;
}

__device__ __forceinline__ bool is_aligned(const void *pointer, unsigned bytes) {
  return (reinterpret_cast<uintptr_t>(pointer) & (bytes - 1)) == 0;
}

template <Format F> struct Decoder;

// Every Decoder has
//   Decoder(weight, table)                table: kTableFloats of shared memory, or nullptr where kUsesTable is false. All threads of
//                                         the block make one together; a barrier must follow.
//   Raw load(row, block, valid)           starts reading a block; reads nothing and stands for zeros where not valid
//   void part(raw, i, v[8])               one part, without scale(raw)
//   float scale(raw)
template <> struct Decoder<Format::q4o> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned code[4];
    float scale;
  };
  const uint8_t *code;
  const int8_t *block_scale;
  uint64_t blocks;
  unsigned table[4];  // v + 128
  bool aligned;

  __device__ Decoder(const Weight &w, float *) : code(w.q4o.code), block_scale(w.q4o.block_scale), blocks(w.blocks), aligned(is_aligned(w.q4o.code, 16)) {
    const unsigned *words = reinterpret_cast<const unsigned *>(w.q4o.code_table);
#pragma unroll
    for (int i = 0; i < 4; i++) table[i] = words[i] ^ 0x80808080u;
  }
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    if (!valid) return Raw{{0, 0, 0, 0}, 0.0f};
    const uint64_t index = row * blocks + block;
    const uint4 words = load_words(code + index * 16, aligned);
    return Raw{{words.x, words.y, words.z, words.w}, static_cast<float>(block_scale[index])};
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    unsigned low, high;
    look_up_eight(table[0], table[1], table[2], table[3], pick(raw.code, i), &low, &high);
    bytes_to_floats(low, v);
    bytes_to_floats(high, v + 4);
  }
  __device__ float scale(const Raw &raw) const { return raw.scale; }
};

template <> struct Decoder<Format::q8> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    unsigned code[8];
    float scale;
  };
  const int8_t *code;
  const uint16_t *block_scale;
  uint64_t blocks;
  bool aligned;

  __device__ Decoder(const Weight &w, float *) : code(w.q8.code), block_scale(w.q8.scale), blocks(w.blocks), aligned(is_aligned(w.q8.code, 16)) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    if (!valid) return Raw{{0, 0, 0, 0, 0, 0, 0, 0}, 0.0f};
    const uint64_t index = row * blocks + block;
    const uint4 low = load_words(code + index * 32, aligned), high = load_words(code + index * 32 + 16, aligned);
    return Raw{{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}, device_bf16(block_scale[index])};
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    bytes_to_floats(pick(raw.code, i) ^ 0x80808080u, v);
    bytes_to_floats(pick(raw.code + 4, i) ^ 0x80808080u, v + 4);
  }
  __device__ float scale(const Raw &raw) const { return raw.scale; }
};

// Blocks of 64 run over the flat tensor. Where a row is no multiple of 32 columns a block of ours may lie in two of them and start at a
// low nibble: then every element is read by itself.
template <> struct Decoder<Format::nf4> {
  static constexpr bool kUsesTable = true;
  struct Raw {
    // Codes; where rows are irregular the block's place in the flat tensor (low, high) and the number of its columns that exist.
    unsigned code[4];
    float scale;
  };
  const uint8_t *code;
  const float *absmax;
  const float *table;
  uint64_t cols;
  bool regular;

  __device__ Decoder(const Weight &w, float *shared_table)
      : code(w.nf4.code), absmax(w.nf4.absmax), table(shared_table + (threadIdx.x & 31)), cols(w.cols),
        regular(w.cols % 32 == 0 && is_aligned(w.nf4.code, 16)) {
    for (int i = static_cast<int>(threadIdx.x); i < kTableFloats; i += static_cast<int>(blockDim.x)) shared_table[i] = kDeviceNf4[i / 32];
  }
  __device__ float value(unsigned nibble) const { return table[nibble * 32]; }
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    if (!valid) return Raw{{0, 0, 0, 0}, 0.0f};
    const uint64_t element = row * cols + block * 32;
    if (!regular) {
      const unsigned columns = static_cast<unsigned>(min(cols - block * 32, uint64_t{32}));
      return Raw{{static_cast<unsigned>(element), static_cast<unsigned>(element >> 32), columns, 0}, 1.0f};
    }
    const uint4 words = load_streaming_16(code + element / 2);
    return Raw{{words.x, words.y, words.z, words.w}, absmax[element / nf4_block]};
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
    if (!regular) {
      const uint64_t first = static_cast<uint64_t>(raw.code[1]) << 32 | raw.code[0];
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const unsigned column = static_cast<unsigned>(4 * i + j + (j < 4 ? 0 : 12));
        v[j] = 0.0f;
        if (column >= raw.code[2]) continue;
        const uint64_t element = first + column;
        const unsigned byte = code[element / 2];
        v[j] = value(element % 2 == 0 ? byte >> 4 : byte & 15) * absmax[element / nf4_block];
      }
      return;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      // Two bytes; the high nibble is the even element.
      const unsigned word = pick(raw.code, 2 * half + i / 2) >> (16 * (i & 1));
      v[4 * half] = value((word >> 4) & 15);
      v[4 * half + 1] = value(word & 15);
      v[4 * half + 2] = value((word >> 12) & 15);
      v[4 * half + 3] = value((word >> 8) & 15);
    }
  }
  __device__ float scale(const Raw &raw) const { return raw.scale; }
};

// f32, f16, bf16: a block is 64 to 128 bytes, more than a thread can keep in registers for several rows; parts are read when asked for.
template <Format F> struct DenseDecoder {
  static constexpr bool kUsesTable = false;
  static constexpr int kElementBytes = F == Format::f32 ? 4 : 2;
  struct Raw {
    const uint8_t *from;
    int columns;  // that exist, 0 .. 32
  };
  const uint8_t *values;
  uint64_t cols;
  bool regular;  // four columns at a time are aligned, and exist or do not together

  __device__ DenseDecoder(const Weight &w, float *)
      : values(w.dense.values), cols(w.cols), regular(w.cols % 4 == 0 && is_aligned(w.dense.values, 4 * kElementBytes)) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    const int columns = valid ? static_cast<int>(min(cols - block * 32, uint64_t{32})) : 0;
    return Raw{values + (row * cols + block * 32) * kElementBytes, columns};
  }
  static __device__ float one(const uint8_t *from) {
    if constexpr (F == Format::f32) return *reinterpret_cast<const float *>(from);
    const uint16_t bits = *reinterpret_cast<const uint16_t *>(from);
    return F == Format::f16 ? device_f16(bits) : device_bf16(bits);
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int column = 4 * i + 16 * half;
      const uint8_t *from = raw.from + column * kElementBytes;
      float *to = v + 4 * half;
      if (regular && column < raw.columns) {
        if constexpr (F == Format::f32) {
          const float4 four = __ldcs(reinterpret_cast<const float4 *>(from));
          to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
        } else {
          const uint2 two = __ldcs(reinterpret_cast<const uint2 *>(from));
          const uint16_t bits[4] = {static_cast<uint16_t>(two.x), static_cast<uint16_t>(two.x >> 16), static_cast<uint16_t>(two.y),
                                    static_cast<uint16_t>(two.y >> 16)};
#pragma unroll
          for (int j = 0; j < 4; j++) to[j] = F == Format::f16 ? device_f16(bits[j]) : device_bf16(bits[j]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < 4; j++) to[j] = column + j < raw.columns ? one(from + j * kElementBytes) : 0.0f;
      }
    }
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};
template <> struct Decoder<Format::f32> : DenseDecoder<Format::f32> {
  using DenseDecoder::DenseDecoder;
};
template <> struct Decoder<Format::f16> : DenseDecoder<Format::f16> {
  using DenseDecoder::DenseDecoder;
};
template <> struct Decoder<Format::bf16> : DenseDecoder<Format::bf16> {
  using DenseDecoder::DenseDecoder;
};

// Packed formats: weights are decoded one by one when asked for, from the definition that the CPU twin has too.
template <> struct Decoder<Format::packed> {
  static constexpr bool kUsesTable = false;
  struct Raw {
    uint64_t row;
    uint64_t col;
    int columns;  // that exist, 0 .. 32
  };
  PackedView view;
  uint64_t cols;

  __device__ Decoder(const Weight &w, float *) : view(w.packed), cols(w.cols) {}
  __device__ Raw load(uint64_t row, uint64_t block, bool valid) const {
    return Raw{row, block * 32, valid ? static_cast<int>(min(cols - block * 32, uint64_t{32})) : 0};
  }
  __device__ void part(const Raw &raw, int i, float (&v)[8]) const {
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = 0.0f;
    // One element's code in a loop: eight copies of every family's take more registers than there are. v is indexed by constants alone, since
    // otherwise it would lie in memory.
    for_family(view.packing.family, [&](auto family) {
#pragma unroll 1
      for (int j = 0; j < 8; j++) {
        const int column = 4 * i + j + (j < 4 ? 0 : 12);
        if (column >= raw.columns) continue;
        const float weight = packed_element<decltype(family)::value>(view, cols, raw.row, raw.col + column);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = k == j ? weight : v[k];
      }
    });
  }
  __device__ float scale(const Raw &) const { return 1.0f; }
};

// Column of element j of part i.
__host__ __device__ constexpr int part_column(int i, int j) { return 4 * i + j + (j < 4 ? 0 : 12); }

// Calls run(std::integral_constant<Format, F>) for the format that is meant.
template <class Run> auto for_format(Format format, Run &&run) {
  switch (format) {
    case Format::f32:
      return run(std::integral_constant<Format, Format::f32>());
    case Format::f16:
      return run(std::integral_constant<Format, Format::f16>());
    case Format::bf16:
      return run(std::integral_constant<Format, Format::bf16>());
    case Format::q8:
      return run(std::integral_constant<Format, Format::q8>());
    case Format::nf4:
      return run(std::integral_constant<Format, Format::nf4>());
    case Format::packed:
      return run(std::integral_constant<Format, Format::packed>());
    case Format::q4o:
      break;
  }
  return run(std::integral_constant<Format, Format::q4o>());
}

}  // namespace airk
