// Small matrix products of attention in float32: queries by keys, weights by values. Include after one of simd_*.h.
#pragma once

#include <cstdint>

namespace airk {
namespace {

using S = Simd;

// c [kRows][kVectors * width] (+)= a [kRows][depth] * b [depth][kVectors * width], with strides in floats.
template <int kRows, int kVectors, bool kAdd>
void multiply_tile(float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b, uint64_t b_stride, uint64_t depth) {
  S::Reg sums[kRows][kVectors];
  for (int r = 0; r < kRows; r++) {
    for (int v = 0; v < kVectors; v++) sums[r][v] = kAdd ? S::load(c + r * c_stride + v * S::kWidth) : S::set(0);
  }
  for (uint64_t d = 0; d < depth; d++) {
    S::Reg row[kVectors];
    for (int v = 0; v < kVectors; v++) row[v] = S::load(b + d * b_stride + v * S::kWidth);
    for (int r = 0; r < kRows; r++) {
      const S::Reg factor = S::set(a[r * a_stride + d]);
      for (int v = 0; v < kVectors; v++) sums[r][v] = S::fma(factor, row[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; r++) {
    for (int v = 0; v < kVectors; v++) S::store(c + r * c_stride + v * S::kWidth, sums[r][v]);
  }
}

template <int kVectors, bool kAdd>
void multiply_rows(int rows, float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b, uint64_t b_stride,
                   uint64_t depth) {
  switch (rows) {
    case 1: return multiply_tile<1, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 2: return multiply_tile<2, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 3: return multiply_tile<3, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 4: return multiply_tile<4, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    case 5: return multiply_tile<5, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
    default: return multiply_tile<S::kTileRows, kVectors, kAdd>(c, c_stride, a, a_stride, b, b_stride, depth);
  }
}

// One band of rows, in tiles of kVectors as long as they fit, then narrower ones.
template <int kVectors, bool kAdd>
void multiply_band(int rows, uint64_t columns, float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b,
                   uint64_t b_stride, uint64_t depth) {
  constexpr uint64_t kColumns = kVectors * S::kWidth;
  uint64_t j = 0;
  for (; j + kColumns <= columns; j += kColumns) {
    multiply_rows<kVectors, kAdd>(rows, c + j, c_stride, a, a_stride, b + j, b_stride, depth);
  }
  if constexpr (kVectors > 1) {
    if (j < columns) multiply_band<kVectors - 1, kAdd>(rows, columns - j, c + j, c_stride, a, a_stride, b + j, b_stride, depth);
  }
}

// columns: a multiple of the width.
template <bool kAdd>
void multiply(uint64_t rows, uint64_t columns, float *c, uint64_t c_stride, const float *a, uint64_t a_stride, const float *b,
              uint64_t b_stride, uint64_t depth) {
  for (uint64_t r = 0; r < rows; r += S::kTileRows) {
    const int band = static_cast<int>(rows - r < S::kTileRows ? rows - r : S::kTileRows);
    multiply_band<S::kTileVectors, kAdd>(band, columns, c + r * c_stride, c_stride, a + r * a_stride, a_stride, b, b_stride, depth);
  }
}

}  // namespace
}  // namespace airk
