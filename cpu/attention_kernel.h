// The inner part of airk_attention: one block of query rows of one key head against a run of keys.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pass_sequence.h"
#include "cache_layout.h"
#include "runtime.h"

namespace airk {

// Keys that are brought in from the cache at a time.
constexpr int kKeyBlock = 64;
// Keys whose softmax is kept apart from other chunks'. Chunks are cut at fixed positions of a sequence and merged in their order,
// so that a token's result is the same bits whether threads share its chunks or not, and whatever else is in the pass.
constexpr int kChunkKeys = 256;
// Rows (a token's query head each) that share the keys once they are brought in.
constexpr int kRowBlock = 96;

// What all blocks of one call share.
struct AttentionCall {
  float *y;
  const float *q;
  const void *k_cache, *v_cache;  // v_cache nullptr: values are the beginnings of the keys
  const int32_t *page_table;
  const uint8_t *mask;
  const int32_t *first_visible;  // nullptr: all from position 0 on
  const float *sinks, *slopes;   // nullptr: none
  uint64_t tokens, heads, kv_heads, head_dim, value_dim, page_tokens;
  float scale, softcap;

  AIRK_BOTH_INLINE CacheShape keys() const { return {kv_heads, page_tokens, head_dim}; }
  AIRK_BOTH_INLINE CacheShape values() const { return {kv_heads, page_tokens, value_dim}; }
};

// Rows [begin, end) of one sequence and key head; row = token in the sequence * group + head in the group,
// where group = heads / kv_heads.
struct AttentionRows {
  PassSequence sequence;
  uint64_t kv_head;
  uint64_t begin, end;
};

// First position that some row sees, and the end of those.
static inline uint64_t first_position(const AttentionCall &call, const AttentionRows &rows) {
  if (!call.first_visible) return 0;
  const uint64_t group = call.heads / call.kv_heads;
  const int32_t *first = call.first_visible + rows.sequence.first_token;
  int32_t least = first[rows.begin / group];
  for (uint64_t token = rows.begin / group; token <= (rows.end - 1) / group; token++) least = first[token] < least ? first[token] : least;
  return static_cast<uint64_t>(least);
}
static inline uint64_t end_position(const AttentionCall &call, const AttentionRows &rows) {
  if (call.mask) return rows.sequence.positions();
  return rows.sequence.cached + (rows.end - 1) / (call.heads / call.kv_heads) + 1;
}

// Floats from one row of accumulated values to the next: a head's elements, padded so that every Simd can work without tails.
static constexpr uint64_t padded_dim(uint64_t dim) { return (dim + 15) / 16 * 16; }

// Memory of one thread, in floats.
static constexpr uint64_t attention_scratch_floats(uint64_t head_dim, uint64_t value_dim) {
  const uint64_t key = padded_dim(head_dim), value = padded_dim(value_dim), longer = key > value ? key : value;
  // queries, this chunk's and all chunks' values; keys, values and a row of zeros; scores; four numbers a row.
  return kRowBlock * (key + 2 * value) + kKeyBlock * (key + value) + longer + kRowBlock * kKeyBlock + 4 * kRowBlock;
}

// A softmax over some keys, not yet divided: values [rows][padded value_dim], largest score and sum of weights [rows].
struct AttentionPartial {
  float *values, *largest, *sum;
};

struct AttentionKernel {
  // Computes rows over all the keys they see and writes them to y.
  void (*run)(const AttentionCall &call, const AttentionRows &rows, float *scratch);
  // Computes rows over one chunk.
  void (*run_chunk)(const AttentionCall &call, const AttentionRows &rows, uint64_t chunk, const AttentionPartial &out, float *scratch);
  // Merges chunks in their order and writes the rows to y. Consumes `parts`.
  void (*merge)(const AttentionCall &call, const AttentionRows &rows, const AttentionPartial *parts, uint64_t chunks);
};

// One a cache type.
struct AttentionKernels {
  AttentionKernel f32, f16, q8;
};
extern const AttentionKernels kAttentionPortable, kAttentionAvx2, kAttentionAvx512;

}  // namespace airk
