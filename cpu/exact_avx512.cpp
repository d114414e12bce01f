// The float32 inner loops on AVX-512.

// GCC 12 takes the undefined upper halves inside its own intrinsics for uninitialized variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

#include <cstring>
#include <new>

#include "floats.h"

namespace airk {
namespace {

struct Simd {
  typedef __m512 V;
  static constexpr int width = 16;
  AIRK_INLINE V load(const float *p) { return _mm512_loadu_ps(p); }
  AIRK_INLINE void store(float *p, V v) { _mm512_storeu_ps(p, v); }
  AIRK_INLINE V set1(float v) { return _mm512_set1_ps(v); }
  AIRK_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  AIRK_INLINE V abs(V v) { return _mm512_abs_ps(v); }
  AIRK_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
  AIRK_INLINE V step(V sum, V x, V threshold, V height) {
    return _mm512_mask_add_ps(sum, _mm512_cmp_ps_mask(x, threshold, _CMP_GT_OQ), sum, height);
  }
  AIRK_INLINE float sum(V v) { return _mm512_reduce_add_ps(v); }
  AIRK_INLINE V load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }
  AIRK_INLINE float from_half(uint16_t value) { return _cvtsh_ss(value); }
  AIRK_INLINE V load_bf16(const uint8_t *p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  AIRK_INLINE V load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
  }
  AIRK_INLINE void spread_bits(const uint8_t *bits, uint8_t *bytes) {
    uint32_t mask;
    std::memcpy(&mask, bits, 4);
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(bytes), _mm256_movm_epi8(mask));
  }
  // vpermps looks at the low four bits of an index alone, so indices keep whatever is above them.
  typedef __m512i Index;
  AIRK_INLINE void q4o_index(const uint8_t *code, Index (&index)[2]) {
    index[0] = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(code)));
    index[1] = _mm512_srli_epi32(index[0], 4);
  }
  AIRK_INLINE void nf4_index(const uint8_t *code, Index (&index)[2]) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(code)), high = _mm_srli_epi16(packed, 4);
    index[0] = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, packed));
    index[1] = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(high, packed));
  }
  typedef V Table;
  AIRK_INLINE Table table(const float *values) { return load(values); }
  AIRK_INLINE void lookup(Table t, Index index, V *v) { v[0] = _mm512_permutexvar_ps(index, t); }
};

}  // namespace
}  // namespace airk

#include "search.h"

namespace airk {
namespace {

// Brings in what the outliers of several rows multiply, element by element, before it adds the rows up: a row has only a few, and a
// loop over each would cost more in mispredicted ends than in products.
bool sparse_rows(const uint16_t *col, const uint16_t *value, const uint64_t *start, uint64_t rows, uint64_t cols, const float *x, float *sums) {
  constexpr uint64_t capacity = 512;
  alignas(64) float gathered[capacity];
  const __m512i limit = _mm512_set1_epi32(static_cast<int>(cols));
  const auto live = [](uint64_t left) { return left >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << left) - 1); };
  const auto weights = [value](__mmask16 mask, uint64_t i) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, value + i)); };
  for (uint64_t i = start[0]; i < start[rows]; i += 16) {
    const __mmask16 mask = live(start[rows] - i);
    const __m512i index = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, col + i));
    if (_mm512_mask_cmplt_epi32_mask(mask, index, limit) != mask) return false;
  }
  for (uint64_t row = 0; row < rows;) {
    const uint64_t first = start[row];
    uint64_t end = row;
    while (end < rows && start[end + 1] - first <= capacity) end++;
    if (end == row) {
      float total = 0.0f;
      for (uint64_t i = first; i < start[row + 1]; i++) total += _cvtsh_ss(value[i]) * x[col[i]];
      sums[row++] = total;
      continue;
    }
    for (uint64_t i = first; i < start[end]; i++) gathered[i - first] = x[col[i]];
    for (; row < end; row++) {
      __m512 total = _mm512_setzero_ps();
      for (uint64_t i = start[row]; i < start[row + 1]; i += 16) {
        const __mmask16 mask = live(start[row + 1] - i);
        total = _mm512_fmadd_ps(weights(mask, i), _mm512_maskz_loadu_ps(mask, gathered + (i - first)), total);
      }
      sums[row] = _mm512_reduce_add_ps(total);
    }
  }
  return true;
}

}  // namespace
}  // namespace airk

const airk::Kernels *airk::kernels_avx512() {
  static const TileKernel tiles = tiles_f32<12, 2>(), few = tiles_f32<24, 1>();
  static const Kernels kernels = {decode, dot, sparse_rows, sparse_dots, &tiles, &few, read_all, peak_fma, {search, errors, assign}};
  return &kernels;
}
