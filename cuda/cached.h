// Elements of the KV cache, one struct a cache type: where a row lies, and what its elements are.
#pragma once

#include "../cpu/cache_layout.h"
#include "launch.h"

namespace airk {

constexpr uint64_t kNowhere = ~0ull;

__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }

template <class Element> struct CachedPlain {
  using Place = uint64_t;  // of a row's first element; kNowhere reads as zeros
  static __device__ __forceinline__ Place nowhere() { return kNowhere; }
  static __device__ __forceinline__ Place place(const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    return shape.element_of(page, head, offset);
  }
  static __device__ __forceinline__ float read(const void *cache, Place place, int d) {
    return place == kNowhere ? 0.0f : as_float(static_cast<const Element *>(cache)[place + d]);
  }
};

struct CachedQ8 {
  // One 16-byte load from shared memory.
  struct __align__(16) Place {
    uint64_t code, scale;  // in bytes
  };
  static __device__ __forceinline__ Place nowhere() { return {kNowhere, kNowhere}; }
  static __device__ __forceinline__ Place place(const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    return {shape.code_of(page, head, offset), shape.scale_of(page, head, offset)};
  }
  static __device__ __forceinline__ float read(const void *cache, const Place &place, int d) {
    if (place.code == kNowhere) return 0.0f;
    const char *bytes = static_cast<const char *>(cache);
    const __half scale = reinterpret_cast<const __half *>(bytes + place.scale)[d / static_cast<int>(kQ8Block)];
    return static_cast<float>(reinterpret_cast<const signed char *>(bytes + place.code)[d]) * __half2float(scale);
  }
};

}  // namespace airk
