// The float32 inner loops on vectors of four, which GCC and Clang map to whatever the machine has.
#include <cstdint>
#include <cstring>
#include <new>

#include "floats.h"

namespace airk {
namespace {

struct Simd {
  typedef float V __attribute__((vector_size(16)));
  static constexpr int width = 4;
  AIRK_INLINE V load(const float *p) {
    V v;
    std::memcpy(&v, p, 16);
    return v;
  }
  AIRK_INLINE void store(float *p, V v) { std::memcpy(p, &v, 16); }
  AIRK_INLINE V set1(float v) { return V{v, v, v, v}; }
  AIRK_INLINE V fma(V a, V b, V c) { return a * b + c; }
  AIRK_INLINE V abs(V v) { return v < 0.0f ? -v : v; }
  AIRK_INLINE V max(V a, V b) { return a > b ? a : b; }
  AIRK_INLINE V step(V sum, V x, V threshold, V height) { return sum + (x > threshold ? height : V{}); }
  AIRK_INLINE float sum(V v) { return (v[0] + v[1]) + (v[2] + v[3]); }
  AIRK_INLINE V load_f16(const uint8_t *p) {
    uint16_t h[4];
    std::memcpy(h, p, 8);
    return V{from_f16(h[0]), from_f16(h[1]), from_f16(h[2]), from_f16(h[3])};
  }
  AIRK_INLINE float from_half(uint16_t value) { return from_f16(value); }
  AIRK_INLINE V load_bf16(const uint8_t *p) {
    uint16_t h[4];
    std::memcpy(h, p, 8);
    return V{from_bf16(h[0]), from_bf16(h[1]), from_bf16(h[2]), from_bf16(h[3])};
  }
  AIRK_INLINE V load_i8(const int8_t *p) {
    return V{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]), static_cast<float>(p[3])};
  }
  AIRK_INLINE void spread_bits(const uint8_t *bits, uint8_t *bytes) {
    for (int i = 0; i < 32; i++) bytes[i] = bits[i / 8] >> (i % 8) & 1 ? 0xff : 0;
  }
  struct Index {
    uint8_t element[16];
  };
  AIRK_INLINE void q4o_index(const uint8_t *code, Index (&index)[2]) {
    for (int i = 0; i < 16; i++) {
      index[0].element[i] = code[i] & 15;
      index[1].element[i] = code[i] >> 4;
    }
  }
  AIRK_INLINE void nf4_index(const uint8_t *code, Index (&index)[2]) {
    for (int i = 0; i < 16; i++) {
      index[i / 8].element[i % 8 * 2] = code[i] >> 4;
      index[i / 8].element[i % 8 * 2 + 1] = code[i] & 15;
    }
  }
  struct Table {
    float value[16];
  };
  AIRK_INLINE Table table(const float *values) {
    Table t;
    std::memcpy(t.value, values, sizeof t.value);
    return t;
  }
  AIRK_INLINE void lookup(const Table &t, const Index &index, V *v) {
    for (int i = 0; i < 4; i++)
      v[i] = V{t.value[index.element[4 * i]], t.value[index.element[4 * i + 1]], t.value[index.element[4 * i + 2]], t.value[index.element[4 * i + 3]]};
  }
};

}  // namespace
}  // namespace airk

#include "search.h"

const airk::Kernels *airk::kernels_portable() {
  static const TileKernel tiles = tiles_f32<4, 2>(), few = tiles_f32<4, 1>();
  static const Kernels kernels = {decode, dot, sparse_rows_scalar, sparse_dots, &tiles, &few, read_all, peak_fma, {search, errors, assign}};
  return &kernels;
}
