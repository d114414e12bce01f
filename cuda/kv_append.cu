#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__device__ __forceinline__ void store(float *to, float value) { *to = value; }
__device__ __forceinline__ void store(__half *to, float value) { *to = __float2half_rn(value); }

template <class Cached>
__global__ void __launch_bounds__(kElementThreads)
    kv_append(Cached *k_cache, Cached *v_cache, const float *k, const float *v, const int *slots, uint64_t elements, uint64_t kv_heads,
              uint64_t head_dim, uint64_t page_tokens, DeviceError *error) {
  const uint64_t row = kv_heads * head_dim, tokens = elements / row;
  // Every block looks at all slots, so that a wrong one leaves the cache as it was.
  int wrong = 0;
  for (uint64_t token = threadIdx.x; token < tokens; token += kElementThreads) {
    if (slots[token] >= 0) continue;
    report(error, Complaint::slot, static_cast<long long>(token), slots[token], 0);
    wrong = 1;
  }
  if (__syncthreads_or(wrong)) return;
  for (uint64_t i = first_element(); i < elements; i += element_step()) {
    const uint64_t token = i / row, head = i % row / head_dim, element = i % head_dim;
    const uint64_t slot = static_cast<uint64_t>(slots[token]), page = slot / page_tokens, offset = slot % page_tokens;
    const uint64_t to = ((page * kv_heads + head) * page_tokens + offset) * head_dim + element;
    store(k_cache + to, k[i]);
    store(v_cache + to, v[i]);
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_kv_append(airk_stream *stream, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr k,
                                      airk_ptr v, airk_ptr slots, uint64_t tokens, uint64_t kv_heads, uint64_t head_dim,
                                      uint64_t page_tokens) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid =
      airk::check_kv_append(stream, k_cache, v_cache, cache_type, k, v, slots, tokens, kv_heads, head_dim, page_tokens);
  if (invalid != AIRK_OK) return invalid;
  airk::DeviceError *error = stream->context->device_error;
  const uint64_t elements = tokens * kv_heads * head_dim;
  return airk::enqueue_on(stream, "kv_append", [=](cudaStream_t handle) {
    const auto start = airk::launch(airk::element_blocks(elements), airk::kElementThreads, 0, handle);
    const auto *keys = at<const float>(k), *values = at<const float>(v);
    const auto *slot = at<const int>(slots);
    if (cache_type == AIRK_F16) {
      return start(airk::kv_append<__half>, at<__half>(k_cache), at<__half>(v_cache), keys, values, slot, elements, kv_heads, head_dim,
                   page_tokens, error);
    }
    return start(airk::kv_append<float>, at<float>(k_cache), at<float>(v_cache), keys, values, slot, elements, kv_heads, head_dim,
                 page_tokens, error);
  });
}
