#include <cstring>

#include "arguments.h"
#include "cache_layout.h"
#include "row_kernels.h"

using airk::at;

namespace {

// One token's heads into their page.
void append(airk_ptr cache, int32_t cache_type, const airk::CacheShape &shape, const float *heads, uint64_t slot,
            const airk::RowKernels &kernels) {
  const uint64_t page = slot / shape.page_tokens, offset = slot % shape.page_tokens;
  const int64_t dim = static_cast<int64_t>(shape.dim);
  for (uint64_t head = 0; head < shape.kv_heads; head++) {
    const float *from = heads + head * shape.dim;
    if (cache_type == AIRK_F32) {
      std::memcpy(at<float>(cache) + shape.element_of(page, head, offset), from, shape.dim * sizeof(float));
    } else if (cache_type == AIRK_F16) {
      kernels.to_half(at<uint16_t>(cache) + shape.element_of(page, head, offset), from, dim);
    } else {
      kernels.to_q8(at<int8_t>(cache + shape.code_of(page, head, offset)), at<uint16_t>(cache + shape.scale_of(page, head, offset)), from,
                    dim);
    }
  }
}

}  // namespace

extern "C" airk_status airk_kv_append(airk_stream *stream, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr k,
                                      airk_ptr v, airk_ptr slots, uint64_t tokens, uint64_t kv_heads, uint64_t head_dim,
                                      uint64_t value_dim, uint64_t page_tokens) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid =
      airk::check_kv_append(stream, k_cache, v_cache, cache_type, k, v, slots, tokens, kv_heads, head_dim, value_dim, page_tokens);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=]() -> airk_status {
    const int32_t *slot = at<const int32_t>(slots);
    for (uint64_t i = 0; i < tokens; i++) {
      if (slot[i] < 0) {
        return airk::fail(context, AIRK_INVALID, "Cannot run kv_append: slots[%llu] is %d, required is at least 0",
                          static_cast<unsigned long long>(i), slot[i]);
      }
    }
    const airk::RowKernels &kernels = airk::row_kernels(context);
    const airk::CacheShape keys = {kv_heads, page_tokens, head_dim}, values = {kv_heads, page_tokens, value_dim};
    const int64_t grain = airk::grain_of(static_cast<int64_t>(kv_heads * (head_dim + value_dim)));
    airk::parallel_for(context, static_cast<int64_t>(tokens), grain, [&](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        const uint64_t at_slot = static_cast<uint64_t>(slot[i]);
        append(k_cache, cache_type, keys, at<const float>(k) + i * kv_heads * head_dim, at_slot, kernels);
        if (v) append(v_cache, cache_type, values, at<const float>(v) + i * kv_heads * value_dim, at_slot, kernels);
      }
    });
    return AIRK_OK;
  });
}
