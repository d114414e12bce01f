// The exponential over any Simd. Include after one of simd_*.h.
#pragma once

namespace airk {
namespace {

// e ^ x within 2 units in the last place; 0 below -104, infinite above 89, NaN for NaN.
// Range reduction and polynomial of Cephes' expf (S. Moshier).
inline Simd::Reg exponential(Simd::Reg x) {
  using S = Simd;
  // The constant first: where x is NaN, the second operand stays.
  x = S::min(S::set(89.0f), S::max(S::set(-106.0f), x));
  // Adding and taking away 1.5 * 2 ^ 23 rounds to a whole number.
  const S::Reg magic = S::set(12582912.0f);
  const S::Reg n = S::sub(S::fma(x, S::set(1.44269504088896341f), magic), magic);
  // ln 2 in two parts, the first so short that its product with n is exact.
  S::Reg r = S::fma(n, S::set(-0.693359375f), x);
  r = S::fma(n, S::set(2.12194440e-4f), r);
  S::Reg p = S::set(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    p = S::fma(p, r, S::set(c));
  }
  const S::Reg y = S::add(S::fma(p, S::mul(r, r), r), S::set(1.0f));
  return S::scale_by_power(y, n);
}

}  // namespace
}  // namespace airk
