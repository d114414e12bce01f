// Fast dot products of q8 and q4o on AVX2: integer weights times 16-bit integer activations with one scale a block of 32, by
// vpmaddwd. Byte products by vpmaddubsw would saturate.
#include <immintrin.h>

#include "kernels.h"

namespace airk {
namespace {

constexpr uint64_t run_blocks = 8;  // blocks whose scales fill one vector
constexpr float largest_integer = 32639.0f;

struct PackedRun {
  float scale[run_blocks];
  int16_t x[run_blocks][block_cols];
};

uint64_t runs_of(const Weight &w) { return (w.blocks + run_blocks - 1) / run_blocks; }

uint64_t packed_bytes(const Weight &w, int tokens) { return runs_of(w) * sizeof(PackedRun) * static_cast<uint64_t>(tokens); }

void pack(const Weight &w, const float *x, int token, void *packed) {
  PackedRun *runs = static_cast<PackedRun *>(packed) + runs_of(w) * static_cast<uint64_t>(token);
  for (uint64_t block = 0; block < runs_of(w) * run_blocks; block++) {
    PackedRun &run = runs[block / run_blocks];
    const uint64_t in_run = block % run_blocks;
    __m256 v[4];
    __m256 largest_lanes = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
      v[i] = block < w.blocks ? _mm256_loadu_ps(x + block * block_cols + 8 * i) : _mm256_setzero_ps();
      largest_lanes = _mm256_max_ps(largest_lanes, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v[i]));
    }
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, largest_lanes);
    float largest = 0.0f;
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    // Blocks too small to divide by vanish; their products would be below float32's normal range too.
    const float inverse = largest > 1e-30f ? largest_integer / largest : 0.0f;
    run.scale[in_run] = inverse == 0.0f ? 0.0f : largest / largest_integer;
    for (int i = 0; i < 2; i++) {
      const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * i], _mm256_set1_ps(inverse)));
      const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * i + 1], _mm256_set1_ps(inverse)));
      // packs works within 128-bit lanes; the permutation puts the quarters back in order.
      const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(run.x[in_run] + 16 * i), both);
    }
  }
}

// A block's 32 weights as 16-bit integers.
struct Q4oBlocks {
  const uint8_t *code;
  const int8_t *scale;
  __m128i table;
  Q4oBlocks(const Weight &w, uint64_t row)
      : code(w.q4o.code + row * w.blocks * 16),
        scale(w.q4o.block_scale + row * w.blocks),
        table(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w.q4o.code_table))) {}
  inline __attribute__((always_inline)) void load(uint64_t block, __m256i (&weights)[2]) const {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(code + block * 16)), mask = _mm_set1_epi8(15);
    weights[0] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(table, _mm_and_si128(packed, mask)));
    weights[1] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(packed, 4), mask)));
  }
  float scale_of(uint64_t block) const { return scale[block]; }
};

struct Q8Blocks {
  const int8_t *code;
  const uint16_t *scale;
  Q8Blocks(const Weight &w, uint64_t row) : code(w.q8.code + row * w.blocks * block_cols), scale(w.q8.scale + row * w.blocks) {}
  inline __attribute__((always_inline)) void load(uint64_t block, __m256i (&weights)[2]) const {
    const __m128i *p = reinterpret_cast<const __m128i *>(code + block * block_cols);
    weights[0] = _mm256_cvtepi8_epi16(_mm_loadu_si128(p));
    weights[1] = _mm256_cvtepi8_epi16(_mm_loadu_si128(p + 1));
  }
  float scale_of(uint64_t block) const { return from_bf16(scale[block]); }
};

template <class Blocks, int T>
void dot_row(const Weight &w, uint64_t row, const PackedRun *const (&x)[T], int tokens, float *sums, uint64_t sum_stride) {
  const Blocks blocks(w, row);
  __m256 acc[T];
  for (int t = 0; t < T; t++) acc[t] = _mm256_setzero_ps();
  for (uint64_t run = 0; run < runs_of(w); run++) {
    const uint64_t first = run * run_blocks, count = w.blocks - first < run_blocks ? w.blocks - first : run_blocks;
    alignas(32) float scale[T][run_blocks];
    alignas(32) float of_blocks[run_blocks] = {};
    for (uint64_t b = 0; b < count; b++) of_blocks[b] = blocks.scale_of(first + b);
    for (int t = 0; t < T; t++) _mm256_store_ps(scale[t], _mm256_mul_ps(_mm256_load_ps(of_blocks), _mm256_loadu_ps(x[t][run].scale)));
    for (uint64_t b = 0; b < count; b++) {
      __m256i weights[2];
      blocks.load(first + b, weights);
      for (int t = 0; t < T; t++) {
        const __m256i *activations = reinterpret_cast<const __m256i *>(x[t][run].x[b]);
        const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(weights[0], _mm256_loadu_si256(activations)),
                                             _mm256_madd_epi16(weights[1], _mm256_loadu_si256(activations + 1)));
        acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_broadcast_ss(&scale[t][b]), acc[t]);
      }
    }
  }
  for (int t = 0; t < T && t < tokens; t++) {
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, acc[t]);
    sums[static_cast<uint64_t>(t) * sum_stride] = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  }
}

template <class Blocks, int T>
void dot_rows(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  const PackedRun *x[T];
  // Counts in between run as the next larger one, repeating the last token; the extra sums are dropped.
  for (int t = 0; t < T; t++) x[t] = static_cast<const PackedRun *>(packed) + runs_of(w) * static_cast<uint64_t>(t < tokens ? t : tokens - 1);
  for (uint64_t row = row_begin; row < row_end; row++) dot_row<Blocks, T>(w, row, x, tokens, sums + (row - row_begin), sum_stride);
}

template <class Blocks>
void dot_tokens(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  if (tokens == 1) return dot_rows<Blocks, 1>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  if (tokens == 2) return dot_rows<Blocks, 2>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  if (tokens <= 4) return dot_rows<Blocks, 4>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  if (tokens <= 6) return dot_rows<Blocks, 6>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  dot_rows<Blocks, 8>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
}

void dot(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  if (w.format == Format::q8) return dot_tokens<Q8Blocks>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  dot_tokens<Q4oBlocks>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
}

}  // namespace

const FastKernels *fast_kernels_avx2() {
  static const FastKernels kernels = {packed_bytes, pack, dot};
  return &kernels;
}

}  // namespace airk
