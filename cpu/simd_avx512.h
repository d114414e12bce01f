// Sixteen floats in AVX-512 registers. See simd_portable.h.
#pragma once

// GCC 12 takes the deliberately undefined operands within its own intrinsics for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "masked_access.h"

namespace airk {
namespace {

struct Simd {
  using Reg = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kTileRows = 6, kTileVectors = 4;

  static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }

  static Reg load(const float *p) { return _mm512_loadu_ps(p); }
  static void store(float *p, Reg x) { _mm512_storeu_ps(p, x); }
  static Reg load_part(const float *p, int n) {
    masked_access(p, n);
    return _mm512_maskz_loadu_ps(first(n), p);
  }
  static void store_part(float *p, Reg x, int n) {
    masked_access(p, n);
    _mm512_mask_storeu_ps(p, first(n), x);
  }
  static Reg load(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }
  static Reg load_part(const uint16_t *p, int n) {
    masked_access(p, n);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
  }
  static __m256i half(Reg x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static void store(uint16_t *p, Reg x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), half(x)); }
  static void store_part(uint16_t *p, Reg x, int n) {
    masked_access(p, n);
    _mm256_mask_storeu_epi16(p, first(n), half(x));
  }
  static Reg load(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))); }
  static float to_float(uint16_t half) { return _cvtsh_ss(half); }

  static Reg set(float value) { return _mm512_set1_ps(value); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg where_less(Reg a, Reg b, Reg x, Reg y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x); }
  static float sum(Reg x) { return _mm512_reduce_add_ps(x); }
  static float largest(Reg x) { return _mm512_reduce_max_ps(x); }
  static Reg scale_by_power(Reg y, Reg n) { return _mm512_scalef_ps(y, n); }

  static void transpose(Reg *r) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    __m512 s[16];
    for (int i = 0; i < 16; i += 4) {
      s[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
      s[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
      s[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      s[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    // s[4 * g + c], quarter q: element 4 * q + c of rows 4 * g .. 4 * g + 3.
    for (int c = 0; c < 4; c++) {
      const __m512 a = _mm512_shuffle_f32x4(s[c], s[4 + c], 0x88), b = _mm512_shuffle_f32x4(s[8 + c], s[12 + c], 0x88);
      const __m512 d = _mm512_shuffle_f32x4(s[c], s[4 + c], 0xdd), e = _mm512_shuffle_f32x4(s[8 + c], s[12 + c], 0xdd);
      r[c] = _mm512_shuffle_f32x4(a, b, 0x88);
      r[8 + c] = _mm512_shuffle_f32x4(a, b, 0xdd);
      r[4 + c] = _mm512_shuffle_f32x4(d, e, 0x88);
      r[12 + c] = _mm512_shuffle_f32x4(d, e, 0xdd);
    }
  }
};

}  // namespace
}  // namespace airk
