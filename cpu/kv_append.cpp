#include <cstring>

#include "arguments.h"
#include "row_kernels.h"

using airk::at;

namespace {

// One token's heads into their page.
template <class Cached, class Convert>
void append(Cached *cache, const float *heads, uint64_t slot, uint64_t kv_heads, uint64_t head_dim, uint64_t page_tokens,
            Convert convert) {
  const uint64_t page = slot / page_tokens, offset = slot % page_tokens;
  for (uint64_t head = 0; head < kv_heads; head++) {
    convert(cache + ((page * kv_heads + head) * page_tokens + offset) * head_dim, heads + head * head_dim);
  }
}

}  // namespace

extern "C" airk_status airk_kv_append(airk_stream *stream, airk_ptr k_cache, airk_ptr v_cache, int32_t cache_type, airk_ptr k,
                                      airk_ptr v, airk_ptr slots, uint64_t tokens, uint64_t kv_heads, uint64_t head_dim,
                                      uint64_t page_tokens) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid = airk::check_kv_append(stream, k_cache, v_cache, cache_type, k, v, slots, tokens, kv_heads, head_dim, page_tokens);
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
    const auto to_half = airk::row_kernels(context).to_half;
    const uint64_t row = kv_heads * head_dim;
    const int64_t grain = airk::grain_of(static_cast<int64_t>(2 * row));
    airk::parallel_for(context, static_cast<int64_t>(tokens), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        const uint64_t at_slot = static_cast<uint64_t>(slot[i]);
        const float *key = at<const float>(k) + i * row, *value = at<const float>(v) + i * row;
        if (cache_type == AIRK_F16) {
          const auto convert = [=](uint16_t *to, const float *from) { to_half(to, from, static_cast<int64_t>(head_dim)); };
          append(at<uint16_t>(k_cache), key, at_slot, kv_heads, head_dim, page_tokens, convert);
          append(at<uint16_t>(v_cache), value, at_slot, kv_heads, head_dim, page_tokens, convert);
        } else {
          const auto convert = [=](float *to, const float *from) { std::memcpy(to, from, head_dim * sizeof(float)); };
          append(at<float>(k_cache), key, at_slot, kv_heads, head_dim, page_tokens, convert);
          append(at<float>(v_cache), value, at_slot, kv_heads, head_dim, page_tokens, convert);
        }
      }
    });
    return AIRK_OK;
  });
}
