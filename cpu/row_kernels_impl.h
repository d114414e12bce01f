// The kernels of row_kernels.h over any Simd. Include after one of simd_*.h.
#pragma once

#include <type_traits>

#include "cache_layout.h"
#include "half.h"
#include "row_kernels.h"
#include "simd_activations.h"

namespace airk {
namespace {

using S = Simd;

// Calls body(i, n) for runs of n elements from i on that cover [0, count): whole vectors, then what is left. n is a compile-time
// constant for the whole ones.
template <class Body>
void each_vector(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + S::kWidth <= count; i += S::kWidth) body(i, std::integral_constant<int, S::kWidth>());
  if (i < count) body(i, static_cast<int>(count - i));
}
using Whole = std::integral_constant<int, S::kWidth>;
template <class T> S::Reg load(const T *p, Whole) { return S::load(p); }
template <class T> S::Reg load(const T *p, int n) { return S::load_part(p, n); }
template <class T> void store(T *p, S::Reg x, Whole) { S::store(p, x); }
template <class T> void store(T *p, S::Reg x, int n) { S::store_part(p, x, n); }

// The sum of term(vector of x) over all elements; term(0) must be 0.
template <class Term>
float sum_of(const float *x, int64_t cols, Term term) {
  constexpr int kSums = 4;
  S::Reg sums[kSums] = {S::set(0), S::set(0), S::set(0), S::set(0)};
  int64_t i = 0;
  for (; i + kSums * S::kWidth <= cols; i += kSums * S::kWidth) {
    for (int j = 0; j < kSums; j++) sums[j] = term(S::load(x + i + j * S::kWidth), sums[j]);
  }
  for (; i + S::kWidth <= cols; i += S::kWidth) sums[0] = term(S::load(x + i), sums[0]);
  if (i < cols) sums[1] = term(S::load_part(x + i, static_cast<int>(cols - i)), sums[1]);
  return S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
}

void rmsnorm_row(float *y, const float *x, const float *weight, int64_t cols, float eps) {
  const float total = sum_of(x, cols, [](S::Reg v, S::Reg sum) { return S::fma(v, v, sum); });
  const S::Reg scale = S::set(1.0f / __builtin_sqrtf(total / static_cast<float>(cols) + eps));
  if (weight == nullptr) {
    each_vector(cols, [=](int64_t i, auto n) { store(y + i, S::mul(load(x + i, n), scale), n); });
  } else {
    each_vector(cols, [=](int64_t i, auto n) { store(y + i, S::mul(S::mul(load(x + i, n), scale), load(weight + i, n)), n); });
  }
}

void layernorm_row(float *y, const float *x, const float *weight, const float *bias, int64_t cols, float eps) {
  // Two passes: mean(x^2) - mean(x)^2 would cancel.
  const float mean = sum_of(x, cols, [](S::Reg v, S::Reg sum) { return S::add(v, sum); }) / static_cast<float>(cols);
  const S::Reg center = S::set(mean);
  float squares = 0;
  const int64_t whole = cols / S::kWidth * S::kWidth;
  squares = sum_of(x, whole, [=](S::Reg v, S::Reg sum) {
    const S::Reg d = S::sub(v, center);
    return S::fma(d, d, sum);
  });
  // The vector that is cut short would add the mean's square for each missing element.
  for (int64_t i = whole; i < cols; i++) squares += (x[i] - mean) * (x[i] - mean);
  const S::Reg scale = S::set(1.0f / __builtin_sqrtf(squares / static_cast<float>(cols) + eps));
  each_vector(cols, [=](int64_t i, auto n) {
    S::Reg v = S::mul(S::sub(load(x + i, n), center), scale);
    if (weight != nullptr) v = S::mul(v, load(weight + i, n));
    if (bias != nullptr) v = S::add(v, load(bias + i, n));
    store(y + i, v, n);
  });
}

void rotate_head(float *x, const float *cos, const float *sin, int64_t half) {
  each_vector(half, [=](int64_t i, auto n) {
    const S::Reg a = load(x + i, n), b = load(x + half + i, n), c = load(cos + i, n), s = load(sin + i, n);
    store(x + i, S::sub(S::mul(a, c), S::mul(b, s)), n);
    store(x + half + i, S::fma(a, s, S::mul(b, c)), n);
  });
}

void rotate_pairs(float *x, const float *cos, const float *sin, int64_t half) {
  for (int64_t i = 0; i < half; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

template <class Activation>
void gated_run(float *y, const float *gate, const float *up, int64_t count, Activation activation) {
  if (up == nullptr) {
    each_vector(count, [=](int64_t i, auto n) { store(y + i, activation(load(gate + i, n)), n); });
  } else {
    each_vector(count, [=](int64_t i, auto n) { store(y + i, S::mul(activation(load(gate + i, n)), load(up + i, n)), n); });
  }
}

void gated(float *y, const float *gate, const float *up, int64_t count, int32_t activation) {
  switch (activation) {
    case -1: return gated_run(y, gate, up, count, [](S::Reg x) { return x; });
    case AIRK_SILU: return gated_run(y, gate, up, count, [](S::Reg x) { return silu(x); });
    case AIRK_GELU: return gated_run(y, gate, up, count, [](S::Reg x) { return gelu(x); });
    case AIRK_GELU_TANH: return gated_run(y, gate, up, count, [](S::Reg x) { return gelu_tanh(x); });
    case AIRK_RELU: return gated_run(y, gate, up, count, [](S::Reg x) { return relu(x); });
    case AIRK_RELU2: return gated_run(y, gate, up, count, [](S::Reg x) { return S::mul(relu(x), relu(x)); });
    case AIRK_SIGMOID: return gated_run(y, gate, up, count, [](S::Reg x) { return sigmoid(x); });
    case AIRK_TANH: return gated_run(y, gate, up, count, [](S::Reg x) { return hyperbolic_tangent(x); });
    case AIRK_SWIGLU_OAI:
      return each_vector(count, [=](int64_t i, auto n) { store(y + i, swiglu_oai(load(gate + i, n), load(up + i, n)), n); });
  }
}

void add_run(float *y, const float *x, int64_t count, float factor) {
  const S::Reg by = S::set(factor);
  each_vector(count, [=](int64_t i, auto n) { store(y + i, S::fma(by, load(x + i, n), load(y + i, n)), n); });
}

void scale_run(float *y, const float *x, int64_t count, float factor, float softcap) {
  const S::Reg by = S::set(factor);
  if (softcap == 0) {
    each_vector(count, [=](int64_t i, auto n) { store(y + i, S::mul(by, load(x + i, n)), n); });
  } else {
    const S::Reg most = S::set(softcap);
    each_vector(count, [=](int64_t i, auto n) { store(y + i, soft_capped(S::mul(by, load(x + i, n)), most), n); });
  }
}

// The limits first: where x is NaN, the second operand stays.
void clamp_run(float *y, const float *x, int64_t count, float limit) {
  const S::Reg most = S::set(limit), least = S::set(-limit);
  each_vector(count, [=](int64_t i, auto n) { store(y + i, S::max(least, S::min(most, load(x + i, n))), n); });
}

void xielu_run(float *y, const float *x, int64_t count, float positive, float negative, float beta, float eps) {
  const S::Reg above = S::set(positive), below = S::set(negative), by = S::set(beta), least = S::set(eps), zero = S::set(0.0f);
  each_vector(count, [=](int64_t i, auto n) {
    const S::Reg v = load(x + i, n);
    const S::Reg gap = exponential_gap(S::min(least, v), v);
    // NaN takes the second, which is NaN too.
    const S::Reg bent = S::where_less(zero, v, S::mul(above, S::mul(v, v)), S::mul(below, gap));
    store(y + i, S::fma(by, v, bent), n);
  });
}

void half_run(uint16_t *y, const float *x, int64_t count) {
  each_vector(count, [=](int64_t i, auto n) { store(y + i, load(x + i, n), n); });
}

void q8_run(int8_t *codes, uint16_t *scales, const float *x, int64_t count) {
  constexpr int kBlock = static_cast<int>(kQ8Block);
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    float block[kBlock] = {}, largest = 0;
    bool finite = true;
    for (int i = 0; i < kBlock && begin + i < count; i++) {
      block[i] = x[begin + i];
      const float size = __builtin_fabsf(block[i]);
      finite = finite && size <= 3.4028235e38f;
      largest = size > largest ? size : largest;
    }
    const uint16_t bits = float_to_half(largest / 127.0f);
    const float scale = half_to_float(bits);
    finite = finite && scale <= 65504.0f;
    scales[begin / kBlock] = finite ? bits : uint16_t{0x7e00};
    const float inverse = finite && scale > 0 ? 1.0f / scale : 0;
    for (int i = 0; i < kBlock; i++) {
      // A scale that was rounded down may leave the largest a little above 127.
      const float code = finite ? __builtin_rintf(block[i] * inverse) : 0;
      codes[begin + i] = static_cast<int8_t>(code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code);
    }
  }
}

void l2norm_row(float *y, const float *x, int64_t cols, float eps) {
  const float total = sum_of(x, cols, [](S::Reg v, S::Reg sum) { return S::fma(v, v, sum); });
  const S::Reg scale = S::set(1.0f / __builtin_sqrtf(total + eps));
  each_vector(cols, [=](int64_t i, auto n) { store(y + i, S::mul(load(x + i, n), scale), n); });
}

// Few elements a token, so one at a time.
void log_decay_run(float *y, const float *x, const float *a_log, const float *bias, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const float v = x[i] + bias[i];
    // log(1 + e^v) without overflow: for v > 0 it is v + log(1 + e^-v).
    const float softplus = (v > 0 ? v : 0) + __builtin_log1pf(__builtin_expf(v > 0 ? -v : v));
    y[i] = v != v ? v : -__builtin_expf(a_log[i]) * softplus;
  }
}

void delta_step(float *state, int64_t state_stride, const float *q, const float *k, const float *v, float *y, int64_t key_dim,
                int64_t columns, float decay, float beta, float scale, const float *skip, bool corrects) {
  float recalled[kDeltaColumns] = {}, read[kDeltaColumns] = {};
  const S::Reg by = S::set(decay);
  for (int64_t i = 0; corrects && i < key_dim; i++) {
    const float *row = state + i * state_stride;
    const S::Reg key = S::set(k[i]);
    each_vector(columns, [&](int64_t j, auto n) {
      store(recalled + j, S::fma(S::mul(load(row + j, n), by), key, load(recalled + j, n)), n);
    });
  }
  for (int64_t j = 0; j < columns; j++) recalled[j] = (v[j] - recalled[j]) * beta;
  for (int64_t i = 0; i < key_dim; i++) {
    float *row = state + i * state_stride;
    const S::Reg key = S::set(k[i]), query = S::set(q[i]);
    each_vector(columns, [&](int64_t j, auto n) {
      const S::Reg s = S::fma(key, load(recalled + j, n), S::mul(load(row + j, n), by));
      store(row + j, s, n);
      store(read + j, S::fma(s, query, load(read + j, n)), n);
    });
  }
  for (int64_t j = 0; j < columns; j++) y[j] = scale * read[j] + (skip ? *skip * v[j] : 0.0f);
}

constexpr RowKernels kKernels = {rmsnorm_row, layernorm_row, rotate_head, rotate_pairs, gated, add_run, scale_run, clamp_run, xielu_run, half_run, l2norm_row, log_decay_run, delta_step, q8_run};

}  // namespace
}  // namespace airk
