#include "../cpu/arguments.h"
#include "../cpu/cache_layout.h"
#include "context.h"
#include "elementwise.h"
#include "warp.h"

namespace airk {
namespace {

// Keys, or values.
struct Rows {
  void *cache;
  const float *from;  // [tokens, kv_heads, dim]; nullptr where there are none
  CacheShape shape;
};

// Every block looks at all slots, so that a wrong one leaves the cache as it was.
__device__ bool slots_valid(const int *slots, uint64_t tokens, DeviceError *error) {
  int wrong = 0;
  for (uint64_t token = threadIdx.x; token < tokens; token += kElementThreads) {
    if (slots[token] >= 0) continue;
    report(error, Complaint::slot, static_cast<long long>(token), slots[token], 0);
    wrong = 1;
  }
  return !__syncthreads_or(wrong);
}

__device__ __forceinline__ void store(float *to, float value) { *to = value; }
__device__ __forceinline__ void store(__half *to, float value) { *to = __float2half_rn(value); }

template <class Cached> __device__ void append(const Rows &rows, const int *slots, uint64_t tokens) {
  const CacheShape &shape = rows.shape;
  for (uint64_t i = first_element(); rows.from && i < tokens * shape.kv_heads * shape.dim; i += element_step()) {
    const uint64_t row = i / shape.dim, head = row % shape.kv_heads, slot = static_cast<uint64_t>(slots[row / shape.kv_heads]);
    const uint64_t to = shape.element_of(slot / shape.page_tokens, head, slot % shape.page_tokens) + i % shape.dim;
    store(static_cast<Cached *>(rows.cache) + to, rows.from[i]);
  }
}

// A warp takes a block of 32 elements.
__device__ void append_q8(const Rows &rows, const int *slots, uint64_t tokens) {
  const CacheShape &shape = rows.shape;
  const uint64_t lane = threadIdx.x % kQ8Block, blocks = shape.blocks();
  for (uint64_t i = first_element() / kQ8Block; rows.from && i < tokens * shape.kv_heads * blocks; i += element_step() / kQ8Block) {
    const uint64_t row = i / blocks, block = i % blocks, head = row % shape.kv_heads, d = block * kQ8Block + lane;
    const uint64_t slot = static_cast<uint64_t>(slots[row / shape.kv_heads]), page = slot / shape.page_tokens, offset = slot % shape.page_tokens;
    const float value = d < shape.dim ? rows.from[row * shape.dim + d] : 0.0f;
    const __half half = __float2half_rn(warp_max(fabsf(value)) / 127.0f);
    const float scale = __half2float(half);
    const bool finite = __all_sync(kAllLanes, fabsf(value) <= 3.4028235e38f) && scale <= 65504.0f;
    const float inverse = finite && scale > 0.0f ? 1.0f / scale : 0.0f;
    // A scale that was rounded down may leave the largest a little above 127.
    const float code = finite ? fminf(fmaxf(rintf(value * inverse), -127.0f), 127.0f) : 0.0f;
    char *bytes = static_cast<char *>(rows.cache);
    reinterpret_cast<signed char *>(bytes + shape.code_of(page, head, offset))[d] = static_cast<signed char>(code);
    if (lane == 0) {
      reinterpret_cast<__half *>(bytes + shape.scale_of(page, head, offset))[block] = finite ? half : __ushort_as_half(0x7e00);
    }
  }
}

template <class Cached>
__global__ void __launch_bounds__(kElementThreads)
    kv_append(const Rows keys, const Rows values, const int *slots, uint64_t tokens, DeviceError *error) {
  if (!slots_valid(slots, tokens, error)) return;
  append<Cached>(keys, slots, tokens);
  append<Cached>(values, slots, tokens);
}

__global__ void __launch_bounds__(kElementThreads)
    kv_append_q8(const Rows keys, const Rows values, const int *slots, uint64_t tokens, DeviceError *error) {
  if (!slots_valid(slots, tokens, error)) return;
  append_q8(keys, slots, tokens);
  append_q8(values, slots, tokens);
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_kv_append(airk_stream *stream, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr k,
                                      airk_ptr v, airk_ptr slots, uint64_t tokens, uint64_t kv_heads, uint64_t head_dim,
                                      uint64_t value_dim, uint64_t page_tokens) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid =
      airk::check_kv_append(stream, k_cache, v_cache, cache_type, k, v, slots, tokens, kv_heads, head_dim, value_dim, page_tokens);
  if (invalid != AIRK_OK) return invalid;
  airk::DeviceError *error = stream->context->device_error;
  const airk::Rows keys = {at<void>(k_cache), at<const float>(k), {kv_heads, page_tokens, head_dim}};
  const airk::Rows values = {at<void>(v_cache), at<const float>(v), {kv_heads, page_tokens, value_dim}};
  // q8 pads each row to whole blocks.
  const uint64_t elements = tokens * kv_heads * (std::max(head_dim, value_dim) + airk::kQ8Block);
  return airk::enqueue_on(stream, "kv_append", [=](cudaStream_t handle) {
    const auto start = airk::launch(airk::element_blocks(elements), airk::kElementThreads, 0, handle);
    const auto *slot = at<const int>(slots);
    if (cache_type == AIRK_F32) return start(airk::kv_append<float>, keys, values, slot, tokens, error);
    if (cache_type == AIRK_F16) return start(airk::kv_append<__half>, keys, values, slot, tokens, error);
    return start(airk::kv_append_q8, keys, values, slot, tokens, error);
  });
}
