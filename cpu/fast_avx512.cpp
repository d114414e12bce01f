// Fast dot products of q8 and q4o on AVX-512 VNNI.
//
// Weights are used as the integers they are stored as. Activations become 8-bit integers X with one scale a block of 32. vpdpbusd
// multiplies unsigned by signed bytes: weights enter as code + 128, and 128 * sum(X) is taken off again through the scales of 16
// blocks at a time. 16 bits would take two products and twice the time, more than memory leaves.
#include <immintrin.h>

#include "kernels.h"

// GCC 12 takes the undefined upper halves inside its own intrinsics for uninitialized variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace airk {
namespace {

constexpr uint64_t run_blocks = 16;  // blocks whose scales fill one vector
constexpr float largest_integer = 127.0f;
constexpr uint64_t scales_ahead = 2048;  // bytes: some 16 rows

// 64 bytes of code are a chunk: 4 blocks of q4o, as two vectors of bytes, or 2 blocks of q8, as one.
struct Q4oChunks {
  static constexpr int parts = 2;
  static constexpr uint64_t run_scale_bytes = run_blocks;
  const uint8_t *code;
  const int8_t *scale;
  __m512i table;
  Q4oChunks(const Weight &w, uint64_t row)
      : code(w.q4o.code + row * w.blocks * 16),
        scale(w.q4o.block_scale + row * w.blocks),
        table(_mm512_broadcast_i32x4(
            _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w.q4o.code_table)), _mm_set1_epi8(-128)))) {}
  inline __attribute__((always_inline)) void unpack(__m512i packed, __m512i (&bytes)[parts]) const {
    const __m512i mask = _mm512_set1_epi8(15);
    bytes[0] = _mm512_shuffle_epi8(table, _mm512_and_si512(packed, mask));
    bytes[1] = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask));
  }
  inline __attribute__((always_inline)) __m512 scales(uint64_t block, __mmask16 live) const {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(live, scale + block)));
  }
  inline __attribute__((always_inline)) void prefetch_scales(uint64_t block) const { _mm_prefetch(reinterpret_cast<const char *>(scale + block) + scales_ahead, _MM_HINT_T1); }
};

struct Q8Chunks {
  static constexpr int parts = 1;
  static constexpr uint64_t run_scale_bytes = 2 * run_blocks;
  const uint8_t *code;
  const uint16_t *scale;
  Q8Chunks(const Weight &w, uint64_t row)
      : code(reinterpret_cast<const uint8_t *>(w.q8.code) + row * w.blocks * block_cols), scale(w.q8.scale + row * w.blocks) {}
  inline __attribute__((always_inline)) void unpack(__m512i packed, __m512i (&bytes)[parts]) const {
    bytes[0] = _mm512_xor_si512(packed, _mm512_set1_epi8(-128));
  }
  inline __attribute__((always_inline)) __m512 scales(uint64_t block, __mmask16 live) const {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(live, scale + block));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  inline __attribute__((always_inline)) void prefetch_scales(uint64_t block) const { _mm_prefetch(reinterpret_cast<const char *>(scale + block) + scales_ahead, _MM_HINT_T1); }
};

// One token's activations: for each run of 16 blocks its scales and corrections, then its chunks.
template <class Chunks>
struct PackedRun {
  static constexpr int chunk_blocks = 2 * Chunks::parts;
  static constexpr int chunks = static_cast<int>(run_blocks) / chunk_blocks;
  float scale[run_blocks];
  float correction[run_blocks];  // -128 * sum(X) * scale
  int8_t x[chunks][Chunks::parts][64];
};

uint64_t runs_of(const Weight &w) { return (w.blocks + run_blocks - 1) / run_blocks; }

uint64_t packed_bytes(const Weight &w, int tokens) {
  const uint64_t run_bytes = w.format == Format::q8 ? sizeof(PackedRun<Q8Chunks>) : sizeof(PackedRun<Q4oChunks>);
  return runs_of(w) * run_bytes * static_cast<uint64_t>(tokens);
}

template <class Chunks>
void pack_runs(const Weight &w, const float *x, PackedRun<Chunks> *runs) {
  for (uint64_t block = 0; block < runs_of(w) * run_blocks; block++) {
    PackedRun<Chunks> &run = runs[block / run_blocks];
    const int in_run = static_cast<int>(block % run_blocks), chunk = in_run / PackedRun<Chunks>::chunk_blocks;
    const int in_chunk = in_run % PackedRun<Chunks>::chunk_blocks;
    __m512 v[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    if (block < w.blocks) {
      v[0] = _mm512_loadu_ps(x + block * block_cols);
      v[1] = _mm512_loadu_ps(x + block * block_cols + 16);
    }
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1])));
    // Blocks too small to divide by vanish; their products would be below float32's normal range too.
    const float inverse = largest > 1e-30f ? largest_integer / largest : 0.0f;
    int sum = 0;
    for (int half = 0; half < 2; half++) {
      const __m512i integer = _mm512_cvtps_epi32(_mm512_mul_ps(v[half], _mm512_set1_ps(inverse)));
      sum += _mm512_reduce_add_epi32(integer);
      // q4o: a block's halves lie in different vectors, as its nibbles do; q8: one behind the other.
      const int part = Chunks::parts == 2 ? half : 0, offset = Chunks::parts == 2 ? 16 * in_chunk : 32 * in_chunk + 16 * half;
      _mm_storeu_si128(reinterpret_cast<__m128i *>(run.x[chunk][part] + offset), _mm512_cvtepi32_epi8(integer));
    }
    const float scale = inverse == 0.0f ? 0.0f : largest / largest_integer;
    run.scale[in_run] = scale;
    run.correction[in_run] = -128.0f * static_cast<float>(sum) * scale;
  }
}

void pack(const Weight &w, const float *x, int token, void *packed) {
  const uint64_t first = runs_of(w) * static_cast<uint64_t>(token);
  if (w.format == Format::q8) return pack_runs(w, x, static_cast<PackedRun<Q8Chunks> *>(packed) + first);
  pack_runs(w, x, static_cast<PackedRun<Q4oChunks> *>(packed) + first);
}

// R rows times T tokens over the chunks of one run of blocks.
template <class Chunks, int R, int T, bool Tail>
inline __attribute__((always_inline)) void dot_one_run(const Weight &w, const Chunks (&rows)[R], const PackedRun<Chunks> *const (&x)[T], uint64_t run,
                                                       __m512 (&acc)[R][T]) {
  using Run = PackedRun<Chunks>;
  const uint64_t first = run * run_blocks, blocks = Tail ? w.blocks - first : run_blocks;
  const __mmask16 live = Tail ? static_cast<__mmask16>((1u << blocks) - 1) : 0xffff;
  __m512 scale[R][T];
  for (int r = 0; r < R; r++) {
    const __m512 of_blocks = rows[r].scales(first, live);
    // The processor's prefetchers follow the codes by themselves, and what is asked of the memory besides would only hold them up. The
    // scales they forget in between.
    if (run % (64 / Chunks::run_scale_bytes) == 0) rows[r].prefetch_scales(first);
    for (int t = 0; t < T; t++) {
      scale[r][t] = _mm512_mul_ps(of_blocks, _mm512_loadu_ps(x[t][run].scale));
      acc[r][t] = _mm512_fmadd_ps(of_blocks, _mm512_loadu_ps(x[t][run].correction), acc[r][t]);
    }
  }
  // Lane i of a chunk's sums belongs to block i / (16 / chunk_blocks) of the chunk.
  const __m512i lane = _mm512_srli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), Chunks::parts == 2 ? 2 : 3);
  const uint64_t block_bytes = 64 / Run::chunk_blocks, row_bytes = blocks * block_bytes;
#pragma GCC unroll 8
  for (int c = 0; c < Run::chunks; c++) {
    const uint64_t begin = static_cast<uint64_t>(c) * 64;
    if (Tail && begin >= row_bytes) break;
    const __m512i of_lane = _mm512_add_epi32(lane, _mm512_set1_epi32(c * Run::chunk_blocks));
    for (int r = 0; r < R; r++) {
      const uint8_t *code = rows[r].code + first * block_bytes + begin;
      __m512i packed;
      if (Tail && row_bytes - begin < 64) {
        packed = _mm512_maskz_loadu_epi8((uint64_t{1} << (row_bytes - begin)) - 1, code);
      } else {
        packed = _mm512_loadu_si512(code);
      }
      __m512i bytes[Chunks::parts];
      rows[r].unpack(packed, bytes);
      for (int t = 0; t < T; t++) {
        __m512i sum = _mm512_setzero_si512();
        for (int p = 0; p < Chunks::parts; p++) sum = _mm512_dpbusd_epi32(sum, bytes[p], _mm512_loadu_si512(x[t][run].x[c][p]));
        acc[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_permutexvar_ps(of_lane, scale[r][t]), acc[r][t]);
      }
    }
  }
}

template <class Chunks, int R>
struct RowSet;
template <class Chunks>
struct RowSet<Chunks, 1> {
  Chunks rows[1];
  RowSet(const Weight &w, uint64_t row) : rows{Chunks(w, row)} {}
};
template <class Chunks>
struct RowSet<Chunks, 2> {
  Chunks rows[2];
  RowSet(const Weight &w, uint64_t row) : rows{Chunks(w, row), Chunks(w, row + 1)} {}
};

template <class Chunks, int R, int T>
void dot_rows(const Weight &w, uint64_t row, const PackedRun<Chunks> *const (&x)[T], int tokens, float *sums, uint64_t sum_stride) {
  const RowSet<Chunks, R> set(w, row);
  __m512 acc[R][T];
  for (int r = 0; r < R; r++)
    for (int t = 0; t < T; t++) acc[r][t] = _mm512_setzero_ps();
  const uint64_t whole_runs = w.blocks / run_blocks;
  for (uint64_t run = 0; run < whole_runs; run++) dot_one_run<Chunks, R, T, false>(w, set.rows, x, run, acc);
  if (w.blocks % run_blocks != 0) dot_one_run<Chunks, R, T, true>(w, set.rows, x, whole_runs, acc);
  for (int t = 0; t < T && t < tokens; t++)
    for (int r = 0; r < R; r++) sums[static_cast<uint64_t>(t) * sum_stride + static_cast<uint64_t>(r)] = _mm512_reduce_add_ps(acc[r][t]);
}

template <class Chunks, int R, int T>
void dot_run(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  const PackedRun<Chunks> *x[T];
  // Counts in between run as the next larger one, repeating the last token; the extra sums are dropped.
  for (int t = 0; t < T; t++) x[t] = static_cast<const PackedRun<Chunks> *>(packed) + runs_of(w) * static_cast<uint64_t>(t < tokens ? t : tokens - 1);
  uint64_t row = row_begin;
  for (; row + R <= row_end; row += R) dot_rows<Chunks, R, T>(w, row, x, tokens, sums + (row - row_begin), sum_stride);
  for (; row < row_end; row++) dot_rows<Chunks, 1, T>(w, row, x, tokens, sums + (row - row_begin), sum_stride);
}

template <class Chunks>
void dot_tokens(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  if (tokens == 1) return dot_run<Chunks, 1, 1>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  if (tokens == 2) return dot_run<Chunks, 2, 2>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  if (tokens <= 4) return dot_run<Chunks, 2, 4>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  if (tokens <= 6) return dot_run<Chunks, 1, 6>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  dot_run<Chunks, 1, 8>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
}

void dot(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  if (w.format == Format::q8) return dot_tokens<Q8Chunks>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  dot_tokens<Q4oChunks>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
}

}  // namespace

const FastKernels *fast_kernels_avx512() {
  static const FastKernels kernels = {packed_bytes, pack, dot};
  return &kernels;
}

}  // namespace airk
