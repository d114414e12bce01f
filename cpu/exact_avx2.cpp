// The float32 inner loops on AVX2, FMA and F16C.
#include <immintrin.h>

#include <cstring>
#include <new>

#include "floats.h"

namespace airk {
namespace {

struct Simd {
  typedef __m256 V;
  static constexpr int width = 8;
  AIRK_INLINE V load(const float *p) { return _mm256_loadu_ps(p); }
  AIRK_INLINE void store(float *p, V v) { _mm256_storeu_ps(p, v); }
  AIRK_INLINE V set1(float v) { return _mm256_set1_ps(v); }
  AIRK_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  AIRK_INLINE V abs(V v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
  AIRK_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
  AIRK_INLINE V step(V sum, V x, V threshold, V height) {
    return _mm256_add_ps(sum, _mm256_and_ps(_mm256_cmp_ps(x, threshold, _CMP_GT_OQ), height));
  }
  AIRK_INLINE float sum(V v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  AIRK_INLINE V load_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
  AIRK_INLINE float from_half(uint16_t value) { return _cvtsh_ss(value); }
  AIRK_INLINE V load_bf16(const uint8_t *p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  AIRK_INLINE V load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
  }
  AIRK_INLINE void spread_bits(const uint8_t *bits, uint8_t *bytes) {
    int word;
    std::memcpy(&word, bits, 4);
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
    const __m256i own = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), byte), bit);
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(bytes), _mm256_cmpeq_epi8(own, bit));
  }
  typedef __m128i Index;
  AIRK_INLINE void q4o_index(const uint8_t *code, Index (&index)[2]) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(code)), mask = _mm_set1_epi8(15);
    index[0] = _mm_and_si128(packed, mask);
    index[1] = _mm_and_si128(_mm_srli_epi16(packed, 4), mask);
  }
  AIRK_INLINE void nf4_index(const uint8_t *code, Index (&index)[2]) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(code)), mask = _mm_set1_epi8(15);
    const __m128i low = _mm_and_si128(packed, mask), high = _mm_and_si128(_mm_srli_epi16(packed, 4), mask);
    index[0] = _mm_unpacklo_epi8(high, low);
    index[1] = _mm_unpackhi_epi8(high, low);
  }
  // vpermps chooses among eight, so the table is two halves and bit 3 of the index chooses the half.
  struct Table {
    V low, high;
  };
  AIRK_INLINE Table table(const float *values) { return {load(values), load(values + 8)}; }
  AIRK_INLINE void lookup(const Table &t, Index index, V *v) {
    for (int i = 0; i < 2; i++, index = _mm_srli_si128(index, 8)) {
      const __m256i wide = _mm256_cvtepu8_epi32(index);
      const V half = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 28));
      v[i] = _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, wide), _mm256_permutevar8x32_ps(t.high, wide), half);
    }
  }
};

}  // namespace
}  // namespace airk

#include "search.h"

const airk::Kernels *airk::kernels_avx2() {
  static const TileKernel tiles = tiles_f32<6, 2>(), few = tiles_f32<8, 1>();
  static const Kernels kernels = {decode, dot, sparse_rows_scalar, sparse_dots, &tiles, &few, read_all, peak_fma, {search, errors, assign}};
  return &kernels;
}
