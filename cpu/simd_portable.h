// Four floats in the compiler's own vectors: the portable counterpart of simd_avx2.h and simd_avx512.h. All three offer the same
// names, so that a kernel is written once, as a template. Unnamed namespace: each file compiles its own copy for its own flags.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.h"

namespace airk {
namespace {

struct Simd {
  typedef float Reg __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
  // Rows and vectors of a matrix product's tile that fit in the registers.
  static constexpr int kTileRows = 4, kTileVectors = 2;

  static Reg load(const float *p) {
    Reg x;
    std::memcpy(&x, p, sizeof(x));
    return x;
  }
  static void store(float *p, Reg x) { std::memcpy(p, &x, sizeof(x)); }
  // n < kWidth elements; the others are 0.
  static Reg load_part(const float *p, int n) {
    Reg x = {};
    for (int i = 0; i < n; i++) x[i] = p[i];
    return x;
  }
  static void store_part(float *p, Reg x, int n) {
    for (int i = 0; i < n; i++) p[i] = x[i];
  }
  static Reg load(const uint16_t *p) { return load_part(p, kWidth); }
  static Reg load_part(const uint16_t *p, int n) {
    Reg x = {};
    for (int i = 0; i < n; i++) x[i] = half_to_float(p[i]);
    return x;
  }
  static void store(uint16_t *p, Reg x) { store_part(p, x, kWidth); }
  static void store_part(uint16_t *p, Reg x, int n) {
    for (int i = 0; i < n; i++) p[i] = float_to_half(x[i]);
  }
  static Reg load(const int8_t *p) { return Reg{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]), static_cast<float>(p[3])}; }
  static float to_float(uint16_t half) { return half_to_float(half); }

  static Reg set(float value) { return Reg{value, value, value, value}; }
  static Reg add(Reg a, Reg b) { return a + b; }
  static Reg sub(Reg a, Reg b) { return a - b; }
  static Reg mul(Reg a, Reg b) { return a * b; }
  static Reg div(Reg a, Reg b) { return a / b; }
  static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  // b where either is NaN.
  static Reg max(Reg a, Reg b) { return a > b ? a : b; }
  static Reg min(Reg a, Reg b) { return a < b ? a : b; }
  // x where a < b, else y.
  static Reg where_less(Reg a, Reg b, Reg x, Reg y) { return a < b ? x : y; }
  static float sum(Reg x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static float largest(Reg x) {
    const float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
    return a > b ? a : b;
  }

  // y * 2 ^ n for whole n; in two factors, since 2 ^ n alone may be subnormal or overflow.
  static Reg scale_by_power(Reg y, Reg n) {
    typedef int32_t Integers __attribute__((vector_size(16)));
    const Integers whole = __builtin_convertvector(n, Integers), first = whole >> 1;
    const Bits second = reinterpret_cast<Bits>(whole) - reinterpret_cast<Bits>(first);
    return y * reinterpret_cast<Reg>((reinterpret_cast<Bits>(first) + 127) << 23) * reinterpret_cast<Reg>((second + 127) << 23);
  }

  // rows[i][j] = rows[j][i].
  static void transpose(Reg *rows) {
    for (int i = 0; i < kWidth; i++) {
      for (int j = i + 1; j < kWidth; j++) {
        const float swapped = rows[i][j];
        rows[i][j] = rows[j][i];
        rows[j][i] = swapped;
      }
    }
  }
};

}  // namespace
}  // namespace airk
