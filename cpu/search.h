// The inner loops of the q4o quantizer, over the vector type of exact.h. Included behind it; here Simd also supplies
//   abs, max
//   step(sum, x, threshold, height)   sum + (x > threshold ? height : 0)
#pragma once

#include "exact.h"
#include "search_kernels.h"

namespace airk {
namespace {

// Works for any ascending code: climbs one step for every threshold that x exceeds.
struct NearestBySteps {
  Simd::V threshold[15], height[15], lowest;
  explicit NearestBySteps(const CodeBook &book) {
    lowest = Simd::set1(book.value[0]);
    for (int i = 0; i < 15; i++) {
      threshold[i] = Simd::set1(book.threshold[i]);
      height[i] = Simd::set1(book.value[i + 1] - book.value[i]);
    }
  }
  inline __attribute__((always_inline)) Simd::V operator()(Simd::V x) const {
    Simd::V value = lowest;
    for (int i = 0; i < 15; i++) value = Simd::step(value, x, threshold[i], height[i]);
    return value;
  }
};

struct Block {
  Simd::V v[vectors], q[vectors];
  Block(const float *weights, const float *importance) {
    for (int i = 0; i < vectors; i++) {
      v[i] = Simd::load(weights + i * Simd::width);
      q[i] = Simd::load(importance + i * Simd::width);
    }
  }
};

#if defined(__AVX512F__)
// Cuts the code's range into 32 cells, narrow enough to hold one threshold each: three lookups instead of fifteen steps.
struct NearestByCells {
  __m512 threshold[2], below[2], above[2], scale;
  bool valid = true;
  explicit NearestByCells(const CodeBook &book) {
    alignas(64) float thresholds[32], lower[32], upper[32];
    scale = _mm512_set1_ps(16.0f / book.largest);
    int code = 0;
    for (int cell = 0; cell < 32; cell++) {
      const float end = static_cast<float>(cell - 15) / 16.0f * book.largest;
      lower[cell] = upper[cell] = book.value[code];
      thresholds[cell] = 1e30f;
      // A threshold on a cell's end belongs to the next: there x > threshold is decided.
      for (int inside = 0; code < 15 && (book.threshold[code] < end || cell == 31); inside++) {
        valid = valid && inside == 0;
        thresholds[cell] = book.threshold[code];
        upper[cell] = book.value[++code];
      }
    }
    for (int i = 0; i < 2; i++) {
      threshold[i] = _mm512_load_ps(thresholds + 16 * i);
      below[i] = _mm512_load_ps(lower + 16 * i);
      above[i] = _mm512_load_ps(upper + 16 * i);
    }
  }
  inline __attribute__((always_inline)) __m512 operator()(__m512 x) const {
    const __m512 position = _mm512_fmadd_ps(x, scale, _mm512_set1_ps(16.0f));
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(position, _mm512_setzero_ps()), _mm512_set1_ps(31.0f));
    const __m512i cell = _mm512_cvttps_epi32(clamped);
    const __mmask16 exceeds = _mm512_cmp_ps_mask(x, _mm512_permutex2var_ps(threshold[0], cell, threshold[1]), _CMP_GT_OQ);
    const __m512 low = _mm512_permutex2var_ps(below[0], cell, below[1]), high = _mm512_permutex2var_ps(above[0], cell, above[1]);
    return _mm512_mask_mov_ps(low, exceeds, high);
  }
};
using FastNearest = NearestByCells;
#else
struct FastNearest : NearestBySteps {
  static constexpr bool valid = true;
  explicit FastNearest(const CodeBook &book) : NearestBySteps(book) {}
};
#endif

template <class Nearest>
inline __attribute__((always_inline)) float error_of(const Nearest &nearest, const Block &block, float scale) {
  const Simd::V inverse = Simd::set1(scale == 0.0f ? 0.0f : 1.0f / scale), s = Simd::set1(scale);
  Simd::V error = Simd::set1(0.0f);
  for (int i = 0; i < vectors; i++) {
    const Simd::V difference = block.v[i] - nearest(block.v[i] * inverse) * s;
    error = Simd::fma(difference * block.q[i], difference, error);
  }
  return Simd::sum(error);
}

// The scale that suits the codes which `scale` gives best.
template <class Nearest>
inline __attribute__((always_inline)) float refit(const Nearest &nearest, const Block &block, float scale) {
  const Simd::V inverse = Simd::set1(1.0f / scale);
  Simd::V product = Simd::set1(0.0f), square = Simd::set1(0.0f);
  for (int i = 0; i < vectors; i++) {
    const Simd::V code = nearest(block.v[i] * inverse), weighted = code * block.q[i];
    product = Simd::fma(weighted, block.v[i], product);
    square = Simd::fma(weighted, code, square);
  }
  const float below = Simd::sum(square);
  return below > 0.0f ? Simd::sum(product) / below : 0.0f;
}

template <class Nearest>
void search_with(const Nearest &nearest, const CodeBook &book, const float *v, const float *q, int64_t blocks, float *scale, float *error) {
  for (int64_t b = 0; b < blocks; b++) {
    const Block block(v + b * 32, q + b * 32);
    // Elements of no importance must not set the scale.
    Simd::V largest_lanes = Simd::set1(0.0f);
    for (int i = 0; i < vectors; i++)
      largest_lanes = Simd::max(largest_lanes, Simd::step(Simd::set1(0.0f), block.q[i], Simd::set1(0.0f), Simd::abs(block.v[i])));
    alignas(64) float lanes[Simd::width];
    Simd::store(lanes, largest_lanes);
    float largest = 0.0f;
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    float best = 0.0f, best_error = error_of(nearest, block, 0.0f);
    const float base = largest / book.largest;
    if (base > 1e-30f) {
      for (int m = 0; m < book.multipliers; m++) {
        for (int sign = 0; sign < 2; sign++) {
          const float s = (sign == 0 ? base : -base) * book.multiplier[m], e = error_of(nearest, block, s);
          if (e < best_error) {
            best_error = e;
            best = s;
          }
        }
      }
      for (int i = 0; i < 2 && best != 0.0f; i++) {
        const float s = refit(nearest, block, best), e = error_of(nearest, block, s);
        if (!(e < best_error)) break;
        best_error = e;
        best = s;
      }
    }
    scale[b] = best;
    error[b] = best_error;
  }
}

void search(const CodeBook &book, const float *v, const float *q, int64_t blocks, float *scale, float *error) {
  const FastNearest nearest(book);
  if (nearest.valid) return search_with(nearest, book, v, q, blocks, scale, error);
  search_with(NearestBySteps(book), book, v, q, blocks, scale, error);
}

void errors_with(const CodeBook &book, const float *v, const float *q, const float *scales, int count, float *errors) {
  const Block block(v, q);
  const FastNearest nearest(book);
  const NearestBySteps steps(book);
  for (int i = 0; i < count; i++) errors[i] = nearest.valid ? error_of(nearest, block, scales[i]) : error_of(steps, block, scales[i]);
}

void assign(const CodeBook &book, const float *v, const float *scales, int64_t blocks, float *values) {
  const NearestBySteps nearest(book);
  for (int64_t b = 0; b < blocks; b++) {
    const Simd::V inverse = Simd::set1(scales[b] == 0.0f ? 0.0f : 1.0f / scales[b]);
    for (int i = 0; i < vectors; i++) {
      const int64_t offset = b * 32 + i * Simd::width;
      Simd::store(values + offset, nearest(Simd::load(v + offset) * inverse));
    }
  }
}

}  // namespace
}  // namespace airk
