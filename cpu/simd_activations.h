// The activations of airk_gated, and the soft cap, over any Simd. Include after one of simd_*.h.
#pragma once

#include "simd_exp.h"

namespace airk {
namespace {

// The coefficients of a polynomial, highest power first, at x.
template <int kTerms>
Simd::Reg polynomial(const float (&coefficients)[kTerms], Simd::Reg x) {
  Simd::Reg p = Simd::set(coefficients[0]);
  for (int i = 1; i < kTerms; i++) p = Simd::fma(p, x, Simd::set(coefficients[i]));
  return p;
}

inline Simd::Reg negative(Simd::Reg x) { return Simd::sub(Simd::set(0.0f), x); }
inline Simd::Reg absolute(Simd::Reg x) { return Simd::max(negative(x), x); }

// x * sigmoid(by * x); the quotient is exact to rounding where the exponential is huge or tiny.
inline Simd::Reg times_sigmoid(Simd::Reg x, Simd::Reg by_x) {
  return Simd::div(x, Simd::add(Simd::set(1.0f), exponential(negative(by_x))));
}
inline Simd::Reg silu(Simd::Reg x) { return times_sigmoid(x, x); }
inline Simd::Reg sigmoid(Simd::Reg x) { return times_sigmoid(Simd::set(1.0f), x); }

// NaN stays NaN.
inline Simd::Reg relu(Simd::Reg x) { return Simd::max(Simd::set(0.0f), x); }

// Within 3 units in the last place: 1 - 2 / (e^2x + 1), and near 0, where that would cancel, Cephes' polynomial (S. Moshier).
inline Simd::Reg hyperbolic_tangent(Simd::Reg x) {
  using S = Simd;
  const S::Reg one = S::set(1.0f), size = absolute(x), square = S::mul(x, x);
  const S::Reg small = S::fma(
      S::mul(polynomial({-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f}, square), square), x, x);
  const S::Reg rest = S::div(S::set(2.0f), S::add(exponential(S::add(size, size)), one));
  const S::Reg large = S::sub(one, rest);
  return S::where_less(size, S::set(0.625f), small, S::where_less(x, S::set(0.0f), negative(large), large));
}

inline Simd::Reg soft_capped(Simd::Reg x, Simd::Reg most) { return Simd::mul(most, hyperbolic_tangent(Simd::div(x, most))); }

// x * Phi(x). With z = |x| / sqrt 2 and t = 1 / (1 + z / 2), erfc(z) = t e^(p(t) - z^2) to 1.1e-7 of itself, so that the far negative side
// keeps its digits. p: Chebyshev fit of degree 9 to log(erfc(z) e^(z^2) / t) over 0 <= z <= 12.
inline Simd::Reg gelu(Simd::Reg x) {
  using S = Simd;
  const S::Reg z = S::mul(absolute(x), S::set(0.70710678118654752f));
  const S::Reg t = S::div(S::set(1.0f), S::fma(S::set(0.5f), z, S::set(1.0f)));
  const S::Reg p = polynomial({0.15775101f, -0.75018158f, 1.31865295f, -0.90974068f, 0.09432143f, -0.09025566f, 0.06523265f, 0.38035412f,
                               0.99934808f, -1.26548227f},
                              t);
  const S::Reg half_tail = S::mul(S::mul(S::set(0.5f), t), exponential(S::sub(p, S::mul(z, z))));
  return S::mul(x, S::where_less(x, S::set(0.0f), half_tail, S::sub(S::set(1.0f), half_tail)));
}

// 1 + tanh(u) = 2 sigmoid(2 u).
inline Simd::Reg gelu_tanh(Simd::Reg x) {
  using S = Simd;
  const S::Reg cubic = S::fma(S::mul(S::set(0.044715f), S::mul(x, x)), x, x);
  return times_sigmoid(x, S::mul(S::set(2.0f * 0.79788456080286536f), cubic));
}

// e^m - 1 - x of an m that is x or a little below. Near 0, where that would cancel, the exponential's own polynomial without its first terms.
inline Simd::Reg exponential_gap(Simd::Reg m, Simd::Reg x) {
  using S = Simd;
  const S::Reg tail = polynomial({1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}, m);
  const S::Reg near = S::fma(tail, S::mul(m, m), S::sub(m, x)), far = S::sub(S::sub(exponential(m), S::set(1.0f)), x);
  return S::where_less(absolute(m), S::set(0.34f), near, far);
}

// The gated activation of gpt-oss.
inline Simd::Reg swiglu_oai(Simd::Reg gate, Simd::Reg up) {
  using S = Simd;
  const S::Reg g = S::min(S::set(7.0f), gate), u = S::max(S::set(-7.0f), S::min(S::set(7.0f), up));
  return S::mul(times_sigmoid(g, S::mul(S::set(1.702f), g)), S::add(u, S::set(1.0f)));
}

}  // namespace
}  // namespace airk
