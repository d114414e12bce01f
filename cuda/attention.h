// What the kernels of airk_attention share.
#pragma once

#include "../cpu/pass_sequence.h"
#include "activations.h"
#include "cached.h"
#include "device_error.h"

namespace airk {

constexpr unsigned kRowMask = 0xffffffffu;

struct AttentionCall {
  float *y;
  const float *q;
  const void *k_cache, *v_cache;  // v_cache nullptr: values are the beginnings of the keys
  CacheShape keys, values;
  const int *sequences;
  const int *page_table;
  const uint8_t *mask;
  const int *first_visible;     // nullptr: all from position 0 on
  const float *sinks, *slopes;  // nullptr: none
  uint64_t tokens, heads, kv_heads, page_tokens, context_tokens, sequence_count;
  float scale, softcap;
  float *partial;  // [tokens * heads][chunks][value_dim + 2]: sums, largest score, sum of weights; nullptr where blocks do it all
  uint64_t chunks;
  DeviceError *error;

  __device__ uint64_t first_of(const PassSequence &sequence, uint64_t token) const {
    return first_visible ? static_cast<uint64_t>(max(first_visible[sequence.first_token + token], 0)) : 0;
  }
};

__device__ __forceinline__ bool accept(const AttentionCall &call, const SequenceFinding &finding) {
  return accept(call.error, SequenceUser::attention, finding);
}

// Returns false, and reports, where an entry is not one that the caller may have meant.
__device__ __forceinline__ bool read_sequence(const AttentionCall &call, uint64_t index, PassSequence *sequence) {
  return accept(call, read_sequence(call.sequences, index, call.tokens, call.context_tokens, sequence));
}

// e^(from - to), where `from` may be -infinity: nothing was seen yet.
__device__ __forceinline__ float rescale(float from, float to) { return from == -INFINITY ? 0.0f : expf(from - to); }

// Folds one chunk's result into what was folded before; -infinity as the largest score of either stands for nothing.
struct Merged {
  float largest = -INFINITY, weights = 0.0f, old_factor = 0.0f, new_factor = 0.0f;
  __device__ void add(float chunk_largest, float chunk_weights) {
    const float most = fmaxf(largest, chunk_largest);
    old_factor = rescale(largest, most);
    new_factor = rescale(chunk_largest, most);
    weights = weights * old_factor + chunk_weights * new_factor;
    largest = most;
  }
  // A score without a value; returns what it leaves of the sums, 1 where there is none.
  __device__ float add_sink(const float *sinks, uint64_t head) {
    if (!sinks) return 1.0f;
    add(sinks[head], 1.0f);
    return old_factor;
  }
};

// Whether a token sees a position of its sequence; token: within the sequence's part of the pass.
__device__ __forceinline__ bool is_seen(const AttentionCall &call, const PassSequence &sequence, uint64_t token, uint64_t first_seen, uint64_t position) {
  if (position < first_seen) return false;
  if (position < sequence.cached) return true;
  const uint64_t other = position - sequence.cached;
  return call.mask ? call.mask[(sequence.first_token + token) * call.tokens + sequence.first_token + other] != 0 : other <= token;
}

// A row's product of query and key, as a score.
__device__ __forceinline__ float score_of(const AttentionCall &call, float product, float slope, const PassSequence &sequence, uint64_t token,
                                          uint64_t position) {
  if (call.softcap != 0.0f) product = soft_capped(product, call.softcap);
  if (call.slopes) product += slope * static_cast<float>(static_cast<int64_t>(position) - static_cast<int64_t>(sequence.cached + token));
  return product;
}

// The same on tensor cores, in float16 with float32 sums: for heads of up to kMostTensorDims elements in a cache of float16 or of 8 bits.
constexpr uint64_t kMostTensorDims = 256;
cudaError_t attend_tensor(const AttentionCall &call, int32_t cache_type, cudaStream_t stream);

}  // namespace airk
