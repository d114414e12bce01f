// The float32 inner loops, written once over a vector type. Included by exact_portable.cpp, exact_avx2.cpp and exact_avx512.cpp,
// each of which supplies a struct Simd with
//   V, width                           vector of float32 and its elements; width divides 16
//   load, store, set1, fma(a, b, c)    fma may round twice where the machine has none
//   load_f16, load_bf16, load_i8       width elements as float32; from_half: one float16
//   sum                                of all elements
//   spread_bits                        32 bits as bytes, 255 for 1
//   Index, q4o_index, nf4_index        the 2 x 16 element indices in 16 bytes of code
//   Table, table, lookup               16 float32 values and 16 of them by index
// Everything is in an anonymous namespace: code for one instruction set must not be linked in place of another's.
#pragma once

#include <cstring>

#include "kernels.h"
#include "packed_decode.h"

namespace airk {
namespace {

constexpr int vectors = 32 / Simd::width;  // of one block of columns
constexpr uint64_t scale_run = 16;         // blocks whose scales are converted at once

struct F32 {
  static constexpr uint64_t bytes = 4;
  AIRK_INLINE Simd::V load(const uint8_t *p) { return Simd::load(reinterpret_cast<const float *>(p)); }
};
struct F16 {
  static constexpr uint64_t bytes = 2;
  AIRK_INLINE Simd::V load(const uint8_t *p) { return Simd::load_f16(p); }
};
struct Bf16 {
  static constexpr uint64_t bytes = 2;
  AIRK_INLINE Simd::V load(const uint8_t *p) { return Simd::load_bf16(p); }
};

// A decoder gives the core weights of one row, block by block. scales(begin, end) is called before the blocks of a run.
template <class Element>
struct DenseDecoder {
  const uint8_t *row;
  uint64_t cols;
  explicit DenseDecoder(const Weight &w, uint64_t r) : row(w.dense.values + r * w.cols * Element::bytes), cols(w.cols) {}
  inline void scales(uint64_t, uint64_t) {}
  inline __attribute__((always_inline)) void load(uint64_t block, Simd::V (&v)[vectors]) const {
    const uint64_t col = block * block_cols;
    const uint8_t *p = row + col * Element::bytes;
    alignas(64) uint8_t padded[block_cols * Element::bytes];
    if (__builtin_expect(cols - col < block_cols, 0)) {
      std::memset(padded, 0, sizeof padded);
      std::memcpy(padded, p, (cols - col) * Element::bytes);
      p = padded;
    }
    for (int i = 0; i < vectors; i++) v[i] = Element::load(p + i * Simd::width * Element::bytes);
  }
};

struct Q8Decoder {
  const uint16_t *scale;
  const int8_t *code;
  float run[scale_run];
  explicit Q8Decoder(const Weight &w, uint64_t r) : scale(w.q8.scale + r * w.blocks), code(w.q8.code + r * w.blocks * block_cols) {}
  inline void scales(uint64_t begin, uint64_t end) {
    for (uint64_t b = begin; b < end; b++) run[b - begin] = from_bf16(scale[b]);
  }
  inline __attribute__((always_inline)) void load(uint64_t block, Simd::V (&v)[vectors]) const {
    const Simd::V s = Simd::set1(run[block % scale_run]);
    for (int i = 0; i < vectors; i++) v[i] = Simd::load_i8(code + block * block_cols + i * Simd::width) * s;
  }
};

struct Q4oDecoder {
  const int8_t *scale;
  const uint8_t *code;
  Simd::Table table;
  float run[scale_run];
  explicit Q4oDecoder(const Weight &w, uint64_t r) : scale(w.q4o.block_scale + r * w.blocks), code(w.q4o.code + r * w.blocks * 16) {
    float values[16];
    for (int i = 0; i < 16; i++) values[i] = w.q4o.code_table[i];
    table = Simd::table(values);
  }
  inline void scales(uint64_t begin, uint64_t end) {
    for (uint64_t b = begin; b < end; b++) run[b - begin] = scale[b];
  }
  inline __attribute__((always_inline)) void load(uint64_t block, Simd::V (&v)[vectors]) const {
    Simd::Index index[2];
    Simd::q4o_index(code + block * 16, index);
    const Simd::V s = Simd::set1(run[block % scale_run]);
    Simd::lookup(table, index[0], v);
    Simd::lookup(table, index[1], v + vectors / 2);
    for (int i = 0; i < vectors; i++) v[i] = v[i] * s;
  }
};

// nf4 where every row starts on a block of 64.
struct Nf4Decoder {
  const float *absmax;
  const uint8_t *code;
  Simd::Table table;
  explicit Nf4Decoder(const Weight &w, uint64_t r)
      : absmax(w.nf4.absmax + r * (w.cols / nf4_block)), code(w.nf4.code + r * (w.cols / 2)), table(Simd::table(nf4_values)) {}
  inline void scales(uint64_t, uint64_t) {}
  inline __attribute__((always_inline)) void load(uint64_t block, Simd::V (&v)[vectors]) const {
    Simd::Index index[2];
    Simd::nf4_index(code + block * 16, index);
    const Simd::V s = Simd::set1(absmax[block / 2]);
    Simd::lookup(table, index[0], v);
    Simd::lookup(table, index[1], v + vectors / 2);
    for (int i = 0; i < vectors; i++) v[i] = v[i] * s;
  }
};

// nf4 of any width: rows start anywhere in a block, even in the middle of a byte. Rare, so it is decoded one by one.
struct Nf4AnyDecoder {
  const Nf4View nf4;
  uint64_t first, cols;
  explicit Nf4AnyDecoder(const Weight &w, uint64_t r) : nf4(w.nf4), first(r * w.cols), cols(w.cols) {}
  inline void scales(uint64_t, uint64_t) {}
  inline void load(uint64_t block, Simd::V (&v)[vectors]) const {
    alignas(64) float values[block_cols] = {};
    for (uint64_t c = block * block_cols; c < cols && c < (block + 1) * block_cols; c++) {
      const uint64_t element = first + c;
      const int code = (nf4.code[element / 2] >> (element % 2 ? 0 : 4)) & 15;
      values[c % block_cols] = nf4_values[code] * nf4.absmax[element / nf4_block];
    }
    for (int i = 0; i < vectors; i++) v[i] = Simd::load(values + i * Simd::width);
  }
};

// Packed formats, decoded a run of blocks at a time, so that their many layouts need one dense loop.
struct PackedDecoder {
  const Weight &weight;
  uint64_t row;
  alignas(64) float run[scale_run * block_cols];
  explicit PackedDecoder(const Weight &w, uint64_t r) : weight(w), row(r) {}
  inline void scales(uint64_t begin, uint64_t end) { decode_packed(weight, row, begin, end, run); }
  inline __attribute__((always_inline)) void load(uint64_t block, Simd::V (&v)[vectors]) const {
    for (int i = 0; i < vectors; i++) v[i] = Simd::load(run + block % scale_run * block_cols + static_cast<uint64_t>(i * Simd::width));
  }
};

template <class Decoder>
void decode_blocks(const Weight &weight, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  Decoder decoder(weight, row);
  for (uint64_t run = block_begin; run < block_end;) {
    const uint64_t aligned_end = (run / scale_run + 1) * scale_run, run_begin = run / scale_run * scale_run;
    const uint64_t run_end = aligned_end < block_end ? aligned_end : block_end;
    decoder.scales(run_begin, run_end);
    for (; run < run_end; run++, out += block_cols) {
      Simd::V v[vectors];
      decoder.load(run, v);
      for (int i = 0; i < vectors; i++) Simd::store(out + i * Simd::width, v[i]);
    }
  }
}

// R rows times T tokens; every weight is decoded once.
template <class Decoder, int R, int T>
void dot_rows(const Weight &weight, uint64_t row, const Activations &x, int tokens, float *sums, uint64_t sum_stride) {
  // One accumulator a product hides too little of the FMA's latency where there are few products.
  constexpr int parts = R * T * vectors <= 8 ? vectors : (R * T <= 4 ? 2 : 1);
  alignas(64) unsigned char storage[R * sizeof(Decoder)];
  Decoder *decoder = reinterpret_cast<Decoder *>(storage);
  for (int r = 0; r < R; r++) new (decoder + r) Decoder(weight, row + r);
  Simd::V acc[R][T][parts];
  for (int r = 0; r < R; r++)
    for (int t = 0; t < T; t++)
      for (int p = 0; p < parts; p++) acc[r][t][p] = Simd::set1(0.0f);
  for (uint64_t run = 0; run < weight.blocks; run += scale_run) {
    const uint64_t run_end = run + scale_run < weight.blocks ? run + scale_run : weight.blocks;
    for (int r = 0; r < R; r++) decoder[r].scales(run, run_end);
    for (uint64_t block = run; block < run_end; block++) {
      for (int r = 0; r < R; r++) {
        Simd::V v[vectors];
        decoder[r].load(block, v);
        for (int t = 0; t < T; t++) {
          const float *activations = x.row[t] + block * block_cols;
          for (int i = 0; i < vectors; i++)
            acc[r][t][i % parts] = Simd::fma(v[i], Simd::load(activations + i * Simd::width), acc[r][t][i % parts]);
        }
      }
    }
  }
  for (int t = 0; t < T && t < tokens; t++) {
    for (int r = 0; r < R; r++) {
      Simd::V total = acc[r][t][0];
      for (int p = 1; p < parts; p++) total = total + acc[r][t][p];
      sums[t * sum_stride + r] = Simd::sum(total);
    }
  }
}

template <class Decoder, int R, int T>
void dot_run(const Weight &weight, uint64_t row_begin, uint64_t row_end, const Activations &x, int tokens, float *sums, uint64_t sum_stride) {
  uint64_t row = row_begin;
  for (; row + R <= row_end; row += R) dot_rows<Decoder, R, T>(weight, row, x, tokens, sums + (row - row_begin), sum_stride);
  for (; row < row_end; row++) dot_rows<Decoder, 1, T>(weight, row, x, tokens, sums + (row - row_begin), sum_stride);
}

template <class Decoder>
void dot_tokens(const Weight &weight, uint64_t row_begin, uint64_t row_end, const Activations &given, int tokens, float *sums, uint64_t sum_stride) {
  // Counts in between run as the next larger one, repeating the last row; the extra sums are dropped.
  Activations x = given;
  for (int t = tokens; t < max_dot_tokens; t++) x.row[t] = given.row[tokens - 1];
  constexpr int few = Simd::width == 16 ? 2 : 1;
  if (tokens == 1) return dot_run<Decoder, 4, 1>(weight, row_begin, row_end, x, tokens, sums, sum_stride);
  if (tokens == 2) return dot_run<Decoder, 2, 2>(weight, row_begin, row_end, x, tokens, sums, sum_stride);
  if (tokens <= 4) return dot_run<Decoder, few, 4>(weight, row_begin, row_end, x, tokens, sums, sum_stride);
  if (tokens <= 6) return dot_run<Decoder, few, 6>(weight, row_begin, row_end, x, tokens, sums, sum_stride);
  dot_run<Decoder, few, 8>(weight, row_begin, row_end, x, tokens, sums, sum_stride);
}

// Calls f with a value of the decoder's type as its first argument's type.
#define AIRK_WITH_DECODER(weight, function, ...)                                        \
  switch ((weight).format) {                                                            \
    case Format::f32: return function<DenseDecoder<F32>>(weight, __VA_ARGS__);          \
    case Format::f16: return function<DenseDecoder<F16>>(weight, __VA_ARGS__);          \
    case Format::bf16: return function<DenseDecoder<Bf16>>(weight, __VA_ARGS__);        \
    case Format::q8: return function<Q8Decoder>(weight, __VA_ARGS__);                   \
    case Format::q4o: return function<Q4oDecoder>(weight, __VA_ARGS__);                 \
    case Format::nf4:                                                                   \
      if ((weight).cols % nf4_block == 0) return function<Nf4Decoder>(weight, __VA_ARGS__); \
      return function<Nf4AnyDecoder>(weight, __VA_ARGS__);                              \
    case Format::packed: return function<PackedDecoder>(weight, __VA_ARGS__);           \
  }

void decode(const Weight &weight, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out) {
  if (weight.format == Format::packed) return decode_packed(weight, row, block_begin, block_end, out);
  AIRK_WITH_DECODER(weight, decode_blocks, row, block_begin, block_end, out)
}

void dot(const Weight &weight, uint64_t row_begin, uint64_t row_end, const Activations &x, int tokens, float *sums, uint64_t sum_stride) {
  AIRK_WITH_DECODER(weight, dot_tokens, row_begin, row_end, x, tokens, sums, sum_stride)
}

void pack_weights_f32(const float *core, int64_t cols, void *panel_row) { std::memcpy(panel_row, core, static_cast<size_t>(cols) * 4); }

// panel [cols][tile], tokens side by side.
template <int NV>
void pack_activations_f32(const float *const *x, int64_t cols, void *panel) {
  constexpr int tile = NV * Simd::width;
  float *out = static_cast<float *>(panel);
  for (int t = 0; t < tile; t++)
    for (int64_t c = 0; c < cols; c++) out[c * tile + t] = x[t] == nullptr ? 0.0f : x[t][c];
}

// MR rows times NV vectors of tokens, held in registers over all of k.
template <int MR, int NV>
void multiply_f32(const void *a_panel, const void *b_panel, int64_t k, float *c, int64_t ldc) {
  const float *a = static_cast<const float *>(a_panel), *b = static_cast<const float *>(b_panel);
  Simd::V acc[MR][NV];
  // Left to itself GCC keeps more than 16 accumulators in memory.
#pragma GCC unroll 32
  for (int r = 0; r < MR; r++)
    for (int v = 0; v < NV; v++) acc[r][v] = Simd::load(c + r * ldc + v * Simd::width);
  for (int64_t i = 0; i < k; i++, b += NV * Simd::width) {
    Simd::V tokens[NV];
    for (int v = 0; v < NV; v++) tokens[v] = Simd::load(b + v * Simd::width);
#pragma GCC unroll 32
    for (int r = 0; r < MR; r++) {
      const Simd::V weight = Simd::set1(a[r * panel_stride + i]);
      for (int v = 0; v < NV; v++) acc[r][v] = Simd::fma(weight, tokens[v], acc[r][v]);
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < MR; r++)
    for (int v = 0; v < NV; v++) Simd::store(c + r * ldc + v * Simd::width, acc[r][v]);
}

void finish_f32(const float *c, int64_t ldc, int64_t rows, int64_t tokens, const float *scale, const float *bias, float *y, int64_t y_stride) {
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t r = 0; r < rows; r++)
      y[t * y_stride + r] = c[r * ldc + t] * (scale == nullptr ? 1.0f : scale[r]) + (bias == nullptr ? 0.0f : bias[r]);
}

template <int MR, int NV>
constexpr TileKernel tiles_f32() {
  return {MR, NV * Simd::width, 4, nullptr, nullptr, pack_weights_f32, pack_activations_f32<NV>, multiply_f32<MR, NV>, finish_f32};
}

bool sparse_dots(const uint16_t *col, const uint16_t *value, uint64_t count, uint64_t cols, const float *x, float *sums) {
  float total[max_dot_tokens] = {};
  for (uint64_t i = 0; i < count; i++) {
    if (col[i] >= cols) return false;
    const float weight = Simd::from_half(value[i]), *tokens = x + uint64_t{col[i]} * max_dot_tokens;
    for (int t = 0; t < max_dot_tokens; t++) total[t] += weight * tokens[t];
  }
  for (int t = 0; t < max_dot_tokens; t++) sums[t] += total[t];
  return true;
}

[[maybe_unused]] bool sparse_rows_scalar(const uint16_t *col, const uint16_t *value, const uint64_t *start, uint64_t rows, uint64_t cols, const float *x,
                                         float *sums) {
  for (uint64_t r = 0; r < rows; r++) {
    float total = 0;
    for (uint64_t i = start[r]; i < start[r + 1]; i++) {
      if (col[i] >= cols) return false;
      total += Simd::from_half(value[i]) * x[col[i]];
    }
    sums[r] = total;
  }
  return true;
}

uint64_t read_all(const uint8_t *from, uint64_t bytes) {
  typedef uint64_t Words __attribute__((vector_size(sizeof(Simd::V))));
  constexpr uint64_t streams = 512 / sizeof(Words);
  Words sum[streams] = {};
  for (uint64_t i = 0; i < bytes; i += 512) {
    for (uint64_t s = 0; s < streams; s++) {
      Words words;
      std::memcpy(&words, from + i + s * sizeof(Words), sizeof(Words));
      sum[s] ^= words;
    }
  }
  uint64_t result = 0;
  for (uint64_t s = 0; s < streams; s++)
    for (uint64_t i = 0; i < sizeof(Words) / 8; i++) result ^= sum[s][i];
  return result;
}

double peak_fma(int64_t repeats) {
  constexpr int chains = Simd::width == 16 ? 24 : 12;
  Simd::V sum[chains], factor = Simd::set1(0.5f), term = Simd::set1(1.0f);
#pragma GCC unroll 32
  for (int c = 0; c < chains; c++) sum[c] = Simd::set1(static_cast<float>(c));
  for (int64_t i = 0; i < repeats; i++) {
#pragma GCC unroll 32
    for (int c = 0; c < chains; c++) sum[c] = Simd::fma(sum[c], factor, term);
  }
  float total = 0.0f;
#pragma GCC unroll 32
  for (int c = 0; c < chains; c++) total += Simd::sum(sum[c]);
  // Uses the total, which is finite, or the compiler could leave out the loop.
  return static_cast<double>(repeats) * chains * Simd::width * 2 + (total > 1e30f ? 1.0 : 0.0);
}

}  // namespace
}  // namespace airk
