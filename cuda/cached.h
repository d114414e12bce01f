// Elements of the KV cache, one struct a cache type: where a row lies, and what its elements are.
#pragma once

#include "../cpu/cache_layout.h"
#include "ptx.h"

namespace airk {

constexpr uint64_t kNowhere = ~0ull;

__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }

__device__ __forceinline__ unsigned two_halves(float low, float high) {
  return static_cast<unsigned>(__half_as_ushort(__float2half_rn(low))) | static_cast<unsigned>(__half_as_ushort(__float2half_rn(high))) << 16;
}

template <class Element> struct CachedPlain {
  using Place = uint64_t;  // of a row's first element; kNowhere reads as zeros
  static __device__ __forceinline__ Place nowhere() { return kNowhere; }
  static __device__ __forceinline__ Place place(const CacheShape &shape, uint64_t page, uint64_t head, uint64_t offset) {
    return shape.element_of(page, head, offset);
  }
  static __device__ __forceinline__ float read(const void *cache, Place place, int d) {
    return place == kNowhere ? 0.0f : as_float(static_cast<const Element *>(cache)[place + d]);
  }
  // Elements d .. d + 7 as float16, zeros from `dim` on; d is a multiple of 8. Of float16 alone.
  static __device__ __forceinline__ uint4 read_eight(const void *cache, Place place, int d, int dim) {
    if (place == kNowhere || d >= dim) return make_uint4(0, 0, 0, 0);
    const unsigned short *from = static_cast<const unsigned short *>(cache) + place + d;
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0 && d + 8 <= dim) return *reinterpret_cast<const uint4 *>(from);
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const unsigned low = d + 2 * i < dim ? from[2 * i] : 0u, high = d + 2 * i + 1 < dim ? from[2 * i + 1] : 0u;
      words[i] = low | high << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
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
  // As CachedPlain's, rounded to float16. Codes beyond the row's elements are zero.
  static __device__ __forceinline__ uint4 read_eight(const void *cache, const Place &place, int d, int dim) {
    if (place.code == kNowhere || d >= dim) return make_uint4(0, 0, 0, 0);
    const char *bytes = static_cast<const char *>(cache);
    const float scale = __half2float(reinterpret_cast<const __half *>(bytes + place.scale)[d / static_cast<int>(kQ8Block)]);
    const signed char *code = reinterpret_cast<const signed char *>(bytes + place.code) + d;
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const char2 two = reinterpret_cast<const char2 *>(code)[i];
      words[i] = two_halves(static_cast<float>(two.x) * scale, static_cast<float>(two.y) * scale);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

}  // namespace airk
