// A row of keys or values in the cache, of each cache type. Include after one of simd_*.h.
#pragma once

#include "attention_kernel.h"

namespace airk {
namespace {

using S = Simd;

constexpr uint64_t kLineBytes = 64;

// A function that only prefetches is free of effects to GCC, which leaves out every call of it that is not inlined early.
#define AIRK_ALWAYS_INLINE __attribute__((always_inline)) inline

// A row of keys or values of each cache type. announce: has its `dim` elements brought in. load: elements d .. d + width - 1; d is a
// multiple of the width. load_last: as many of them as there are in `dim`, zeros beyond.
template <class Element>
struct PlainRow {
  const Element *elements;
  static PlainRow of(const void *cache, const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    return {static_cast<const Element *>(cache) + shape.element_of(page, head, offset)};
  }
  static PlainRow zero(const float *zeros) { return {reinterpret_cast<const Element *>(zeros)}; }
  AIRK_ALWAYS_INLINE void announce(uint64_t dim) const {
    for (uint64_t d = 0; d < dim; d += kLineBytes / sizeof(Element)) __builtin_prefetch(elements + d, 0, 2);
  }
  S::Reg load(uint64_t d) const { return S::load(elements + d); }
  S::Reg load_last(uint64_t d, uint64_t dim) const { return S::load_part(elements + d, static_cast<int>(dim - d)); }
};

struct Q8Row {
  const int8_t *code;
  const uint16_t *scale;
  static Q8Row of(const void *cache, const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    const char *bytes = static_cast<const char *>(cache);
    return {reinterpret_cast<const int8_t *>(bytes + shape.code_of(page, head, offset)),
            reinterpret_cast<const uint16_t *>(bytes + shape.scale_of(page, head, offset))};
  }
  static Q8Row zero(const float *zeros) { return {reinterpret_cast<const int8_t *>(zeros), reinterpret_cast<const uint16_t *>(zeros)}; }
  AIRK_ALWAYS_INLINE void announce(uint64_t dim) const {
    for (uint64_t d = 0; d < dim; d += kLineBytes) __builtin_prefetch(code + d, 0, 2);
  }
  // A row is stored in whole blocks, and a vector lies within one.
  S::Reg load(uint64_t d) const { return S::mul(S::load(code + d), S::set(S::to_float(scale[d / kQ8Block]))); }
  S::Reg load_last(uint64_t d, uint64_t) const { return load(d); }
};

}  // namespace
}  // namespace airk
