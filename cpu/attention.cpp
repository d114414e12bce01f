// airk_attention: cuts the work into blocks of rows, and into chunks of keys where there are too few blocks for the threads.
#include <algorithm>
#include <vector>

#include "arguments.h"
#include "attention_kernel.h"
#include "row_kernels.h"

using airk::at;

namespace {

const airk::AttentionKernel &kernel_of(const airk_context *context, bool half) {
#if defined(__x86_64__)
  const airk::Isa isa = airk::isa_of(context);
  if (isa >= airk::Isa::avx512) return half ? airk::kAttentionAvx512F16 : airk::kAttentionAvx512F32;
  if (isa >= airk::Isa::avx2) return half ? airk::kAttentionAvx2F16 : airk::kAttentionAvx2F32;
#else
  (void)context;
#endif
  return half ? airk::kAttentionPortableF16 : airk::kAttentionPortableF32;
}

unsigned long long print(uint64_t value) { return value; }

// Checks what only the running operation can see: a wrong entry must not become a stray access.
airk_status check_sequences(airk_context *context, const airk::AttentionCall &call, const int32_t *entries, uint64_t count,
                            uint64_t context_tokens) {
  for (uint64_t i = 0; i < count; i++) {
    const int32_t *entry = entries + 4 * i;
    for (int field = 0; field < 4; field++) {
      if (entry[field] < 0) {
        return airk::fail(context, AIRK_INVALID, "Cannot run attention: sequences[%llu][%d] is %d, required is at least 0", print(i),
                          field, entry[field]);
      }
    }
    const uint64_t first = static_cast<uint64_t>(entry[0]), tokens = static_cast<uint64_t>(entry[1]);
    const uint64_t positions = tokens + static_cast<uint64_t>(entry[2]);
    if (first + tokens > call.tokens) {
      return airk::fail(context, AIRK_INVALID, "Cannot run attention: sequence %llu ends at token %llu, the pass has %llu", print(i),
                        print(first + tokens), print(call.tokens));
    }
    if (positions > context_tokens) {
      return airk::fail(context, AIRK_INVALID, "Cannot run attention: sequence %llu has %llu positions, context_tokens is %llu",
                        print(i), print(positions), print(context_tokens));
    }
    const uint64_t pages = tokens ? (positions + call.page_tokens - 1) / call.page_tokens : 0;
    for (uint64_t page = 0; page < pages; page++) {
      const int32_t number = call.page_table[static_cast<uint64_t>(entry[3]) + page];
      if (number < 0) {
        return airk::fail(context, AIRK_INVALID, "Cannot run attention: page %llu of sequence %llu is %d, required is at least 0",
                          print(page), print(i), number);
      }
    }
  }
  return AIRK_OK;
}

// A block of rows and its chunks of keys.
struct Work {
  airk::AttentionRows rows;
  uint64_t chunks;
  // Index of its first chunk among all chunks.
  uint64_t first_chunk;
};

std::vector<Work> cut_rows(const airk::AttentionCall &call, const int32_t *entries, uint64_t count, uint64_t *chunks) {
  std::vector<Work> work;
  const uint64_t group = call.heads / call.kv_heads;
  *chunks = 0;
  for (uint64_t i = 0; i < count; i++) {
    const int32_t *entry = entries + 4 * i;
    const airk::AttentionSequence sequence = {static_cast<uint64_t>(entry[0]), static_cast<uint64_t>(entry[1]),
                                              static_cast<uint64_t>(entry[2]), static_cast<uint64_t>(entry[3])};
    const uint64_t rows = sequence.tokens * group;
    // The last rows see the most keys: hand the long blocks out first.
    for (uint64_t blocks = (rows + airk::kRowBlock - 1) / airk::kRowBlock; blocks > 0; blocks--) {
      const uint64_t begin = (blocks - 1) * airk::kRowBlock, end = std::min(rows, begin + airk::kRowBlock);
      const uint64_t seen = call.mask ? sequence.tokens : (end - 1) / group + 1;
      const uint64_t parts = (sequence.cached + seen + airk::kChunkKeys - 1) / airk::kChunkKeys;
      for (uint64_t head = 0; head < call.kv_heads; head++) {
        work.push_back({{sequence, head, begin, end}, parts, *chunks});
        *chunks += parts;
      }
    }
  }
  return work;
}

// Where the softmax over one chunk is kept.
struct Partials {
  float *memory;
  uint64_t rows, padded;
  uint64_t floats_each() const { return rows * (padded + 2); }
  airk::AttentionPartial of(uint64_t chunk) const {
    float *values = memory + chunk * floats_each();
    return {values, values + rows * padded, values + rows * (padded + 1)};
  }
};

airk_status run(airk_context *context, const airk::AttentionCall &call, const airk::AttentionKernel &kernel, const int32_t *entries,
                uint64_t count, uint64_t context_tokens) {
  const airk_status status = check_sequences(context, call, entries, count, context_tokens);
  if (status != AIRK_OK) return status;
  uint64_t chunks;
  const std::vector<Work> work = cut_rows(call, entries, count, &chunks);
  const uint64_t threads = static_cast<uint64_t>(airk::thread_count(context));
  const uint64_t thread_floats = airk::attention_scratch_floats(call.head_dim);
  // Sharing the chunks costs their memory, but leaves no thread idle. Both ways give the same bits.
  const bool share_chunks = work.size() < 4 * threads && chunks > work.size() && threads > 1;
  uint64_t most_rows = 0;
  for (const Work &each : work) most_rows = std::max(most_rows, each.rows.end - each.rows.begin);
  Partials partials = {nullptr, most_rows, airk::padded_head_dim(call.head_dim)};
  const uint64_t floats = threads * thread_floats + (share_chunks ? chunks * partials.floats_each() : 0);
  float *memory = static_cast<float *>(airk::scratch(context, floats * sizeof(float)));
  if (!memory) return airk::fail(context, AIRK_OUT_OF_MEMORY, "Cannot run attention: no memory for %llu floats", print(floats));
  const auto own = [&](int thread) { return memory + static_cast<uint64_t>(thread) * thread_floats; };

  // A multiply-add is about a sixteenth of a pass over an element; bringing a key in is about eight rows' worth.
  const uint64_t keys = (std::min<uint64_t>(context_tokens, share_chunks ? airk::kChunkKeys : context_tokens) + airk::kKeyBlock - 1) /
                        airk::kKeyBlock * airk::kKeyBlock;
  const int64_t grain = airk::grain_of(static_cast<int64_t>(keys * partials.padded * (most_rows + 8) / 16));

  if (!share_chunks) {
    airk::parallel_for(context, static_cast<int64_t>(work.size()), grain, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; i++) kernel.run(call, work[static_cast<std::size_t>(i)].rows, own(thread));
    });
    return AIRK_OK;
  }
  partials.memory = memory + threads * thread_floats;
  airk::parallel_for(context, static_cast<int64_t>(chunks), grain, [&](int64_t begin, int64_t end, int thread) {
    for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
      const auto after = [](uint64_t chunk, const Work &each) { return chunk < each.first_chunk; };
      const Work &each = *(std::upper_bound(work.begin(), work.end(), i, after) - 1);
      kernel.run_chunk(call, each.rows, i - each.first_chunk, partials.of(i), own(thread));
    }
  });
  airk::parallel_for(context, static_cast<int64_t>(work.size()), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const Work &each = work[static_cast<std::size_t>(i)];
      std::vector<airk::AttentionPartial> parts(each.chunks);
      for (uint64_t chunk = 0; chunk < each.chunks; chunk++) parts[chunk] = partials.of(each.first_chunk + chunk);
      kernel.merge(call, each.rows, parts.data(), each.chunks);
    }
  });
  return AIRK_OK;
}

}  // namespace

extern "C" airk_status airk_attention(airk_stream *stream, airk_ptr y, airk_ptr q, airk_ptr k_cache, airk_ptr v_cache,
                                      int32_t cache_type, airk_ptr sequences, uint64_t sequence_count, airk_ptr page_table,
                                      airk_ptr mask, uint64_t tokens, uint64_t heads, uint64_t kv_heads, uint64_t head_dim,
                                      uint64_t page_tokens, uint64_t context_tokens, float scale) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_attention(stream, y, q, k_cache, v_cache, cache_type, sequences, sequence_count, page_table, tokens, heads, kv_heads, head_dim, page_tokens, context_tokens, scale);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  const airk::AttentionCall call = {at<float>(y),
                                    at<const float>(q),
                                    at<const void>(k_cache),
                                    at<const void>(v_cache),
                                    at<const int32_t>(page_table),
                                    at<const uint8_t>(mask),
                                    tokens,
                                    heads,
                                    kv_heads,
                                    head_dim,
                                    page_tokens,
                                    scale};
  return airk::enqueue(stream, [=] {
    return run(context, call, kernel_of(context, cache_type == AIRK_F16), at<const int32_t>(sequences), sequence_count,
               context_tokens);
  });
}
