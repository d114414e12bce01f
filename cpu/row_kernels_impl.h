// The kernels of row_kernels.h over any Simd. Include after one of simd_*.h.
#pragma once

#include <cmath>

#include "row_kernels.h"
#include "simd_exp.h"

namespace airk {
namespace {

using S = Simd;

void rmsnorm_row(float *y, const float *x, const float *weight, int64_t cols, float eps) {
  constexpr int kSums = 4;
  S::Reg sums[kSums] = {S::set(0), S::set(0), S::set(0), S::set(0)};
  int64_t i = 0;
  for (; i + kSums * S::kWidth <= cols; i += kSums * S::kWidth) {
    for (int j = 0; j < kSums; j++) {
      const S::Reg v = S::load(x + i + j * S::kWidth);
      sums[j] = S::fma(v, v, sums[j]);
    }
  }
  for (; i + S::kWidth <= cols; i += S::kWidth) {
    const S::Reg v = S::load(x + i);
    sums[0] = S::fma(v, v, sums[0]);
  }
  if (i < cols) {
    const S::Reg v = S::load_part(x + i, static_cast<int>(cols - i));
    sums[1] = S::fma(v, v, sums[1]);
  }
  const float total = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
  const S::Reg scale = S::set(1.0f / __builtin_sqrtf(total / static_cast<float>(cols) + eps));
  for (i = 0; i + S::kWidth <= cols; i += S::kWidth) {
    S::store(y + i, S::mul(S::mul(S::load(x + i), scale), S::load(weight + i)));
  }
  if (i < cols) {
    const int n = static_cast<int>(cols - i);
    S::store_part(y + i, S::mul(S::mul(S::load_part(x + i, n), scale), S::load_part(weight + i, n)), n);
  }
}

void rotate_head(float *x, const float *cos, const float *sin, int64_t half) {
  int64_t i = 0;
  for (; i + S::kWidth <= half; i += S::kWidth) {
    const S::Reg a = S::load(x + i), b = S::load(x + half + i), c = S::load(cos + i), s = S::load(sin + i);
    S::store(x + i, S::sub(S::mul(a, c), S::mul(b, s)));
    S::store(x + half + i, S::fma(a, s, S::mul(b, c)));
  }
  if (i < half) {
    const int n = static_cast<int>(half - i);
    const S::Reg a = S::load_part(x + i, n), b = S::load_part(x + half + i, n);
    const S::Reg c = S::load_part(cos + i, n), s = S::load_part(sin + i, n);
    S::store_part(x + i, S::sub(S::mul(a, c), S::mul(b, s)), n);
    S::store_part(x + half + i, S::fma(a, s, S::mul(b, c)), n);
  }
}

S::Reg silu(S::Reg x) {
  const S::Reg one = S::set(1.0f);
  return S::div(x, S::add(one, exponential(S::sub(S::set(0.0f), x))));
}

void swiglu_run(float *y, const float *gate, const float *up, int64_t count) {
  int64_t i = 0;
  for (; i + S::kWidth <= count; i += S::kWidth) S::store(y + i, S::mul(silu(S::load(gate + i)), S::load(up + i)));
  if (i < count) {
    const int n = static_cast<int>(count - i);
    S::store_part(y + i, S::mul(silu(S::load_part(gate + i, n)), S::load_part(up + i, n)), n);
  }
}

void add_run(float *y, const float *x, int64_t count) {
  int64_t i = 0;
  for (; i + S::kWidth <= count; i += S::kWidth) S::store(y + i, S::add(S::load(y + i), S::load(x + i)));
  if (i < count) {
    const int n = static_cast<int>(count - i);
    S::store_part(y + i, S::add(S::load_part(y + i, n), S::load_part(x + i, n)), n);
  }
}

void half_run(uint16_t *y, const float *x, int64_t count) {
  int64_t i = 0;
  for (; i + S::kWidth <= count; i += S::kWidth) S::store(y + i, S::load(x + i));
  if (i < count) S::store_part(y + i, S::load_part(x + i, static_cast<int>(count - i)), static_cast<int>(count - i));
}

constexpr RowKernels kKernels = {rmsnorm_row, rotate_head, swiglu_run, add_run, half_run};

}  // namespace
}  // namespace airk
