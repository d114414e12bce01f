// The inner part of airk_attention: one block of query rows of one key head against a run of keys.
#pragma once

#include <cstddef>
#include <cstdint>

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
  const void *k_cache, *v_cache;
  const int32_t *page_table;
  const uint8_t *mask;
  uint64_t tokens, heads, kv_heads, head_dim, page_tokens;
  float scale;
};

// One sequence of the pass.
struct AttentionSequence {
  uint64_t first_token, tokens, cached, first_page_entry;
};

// Rows [begin, end) of one sequence and key head; row = token in the sequence * group + head in the group,
// where group = heads / kv_heads.
struct AttentionRows {
  AttentionSequence sequence;
  uint64_t kv_head;
  uint64_t begin, end;
};

// Floats from one row of accumulated values to the next: head_dim, padded so that every Simd can work without tails.
constexpr uint64_t padded_head_dim(uint64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Memory of one thread, in floats.
constexpr uint64_t attention_scratch_floats(uint64_t head_dim) {
  const uint64_t padded = padded_head_dim(head_dim);
  // queries, this chunk's and all chunks' values; keys, values and a row of zeros; scores; four numbers a row.
  return 3 * kRowBlock * padded + 2 * kKeyBlock * padded + padded + kRowBlock * kKeyBlock + 4 * kRowBlock;
}

// A softmax over some keys, not yet divided: values [rows][padded head_dim], largest score and sum of weights [rows].
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
extern const AttentionKernel kAttentionPortableF16, kAttentionPortableF32, kAttentionAvx2F16, kAttentionAvx2F32, kAttentionAvx512F16,
    kAttentionAvx512F32;

}  // namespace airk
