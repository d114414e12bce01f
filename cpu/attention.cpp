// airk_attention: cuts the work into blocks of rows, and into chunks of keys where there are too few blocks for the threads.
#include <algorithm>
#include <vector>

#include "arguments.h"
#include "attention_kernel.h"
#include "row_kernels.h"

using airk::at;

namespace {

const airk::AttentionKernels &kernels_of(const airk_context *context) {
#if defined(__x86_64__)
  const airk::Isa isa = airk::isa_of(context);
  if (isa >= airk::Isa::avx512) return airk::kAttentionAvx512;
  if (isa >= airk::Isa::avx2) return airk::kAttentionAvx2;
#else
  (void)context;
#endif
  return airk::kAttentionPortable;
}

const airk::AttentionKernel &kernel_of(const airk_context *context, int32_t cache_type) {
  const airk::AttentionKernels &kernels = kernels_of(context);
  return cache_type == AIRK_F32 ? kernels.f32 : cache_type == AIRK_F16 ? kernels.f16 : kernels.q8;
}

unsigned long long print(uint64_t value) { return value; }

airk::SequenceFinding check_sequence(const airk::AttentionCall &call, uint64_t index, const airk::PassSequence &sequence) {
  // The first position that any token sees.
  uint64_t begin = call.first_visible ? sequence.positions() : 0;
  for (uint64_t token = 0; call.first_visible && token < sequence.tokens; token++) {
    const int32_t first = call.first_visible[sequence.first_token + token];
    const airk::SequenceFinding finding = airk::check_first_visible(sequence, token, first);
    if (finding.fault != airk::SequenceFault::none) return finding;
    begin = std::min(begin, static_cast<uint64_t>(first));
  }
  const uint64_t pages = sequence.tokens ? (sequence.positions() + call.page_tokens - 1) / call.page_tokens : 0;
  for (uint64_t page = begin / call.page_tokens; page < pages; page++) {
    const airk::SequenceFinding finding = airk::check_page(index, page, call.page_table[sequence.first_page_entry + page]);
    if (finding.fault != airk::SequenceFault::none) return finding;
  }
  return {};
}

// Reads all sequences, or fails the context.
airk_status read_sequences(airk_context *context, const airk::AttentionCall &call, const int32_t *entries, uint64_t context_tokens,
                           std::vector<airk::PassSequence> *sequences) {
  for (uint64_t i = 0; i < sequences->size(); i++) {
    airk::PassSequence &sequence = (*sequences)[i];
    airk::SequenceFinding finding = airk::read_sequence(entries, i, call.tokens, context_tokens, &sequence);
    if (finding.fault == airk::SequenceFault::none) finding = check_sequence(call, i, sequence);
    if (finding.fault == airk::SequenceFault::none) continue;
    char text[256];
    airk::describe(airk::SequenceUser::attention, finding, text, sizeof(text));
    return airk::fail(context, AIRK_INVALID, "%s", text);
  }
  return AIRK_OK;
}

// A block of rows and its chunks of keys.
struct Work {
  airk::AttentionRows rows;
  uint64_t first_chunk, chunks;
  // Index of its first chunk among all chunks of the call.
  uint64_t first_partial;
};

std::vector<Work> cut_rows(const airk::AttentionCall &call, const std::vector<airk::PassSequence> &sequences, uint64_t *partials) {
  std::vector<Work> work;
  const uint64_t group = call.heads / call.kv_heads;
  *partials = 0;
  for (const airk::PassSequence &sequence : sequences) {
    const uint64_t rows = sequence.tokens * group;
    // The last rows see the most keys: hand the long blocks out first.
    for (uint64_t blocks = (rows + airk::kRowBlock - 1) / airk::kRowBlock; blocks > 0; blocks--) {
      const uint64_t begin = (blocks - 1) * airk::kRowBlock, end = std::min(rows, begin + airk::kRowBlock);
      for (uint64_t head = 0; head < call.kv_heads; head++) {
        const airk::AttentionRows block = {sequence, head, begin, end};
        const uint64_t first = airk::first_position(call, block) / airk::kChunkKeys;
        const uint64_t chunks = (airk::end_position(call, block) + airk::kChunkKeys - 1) / airk::kChunkKeys - first;
        work.push_back({block, first, chunks, *partials});
        *partials += chunks;
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
  std::vector<airk::PassSequence> sequences(count);
  const airk_status status = read_sequences(context, call, entries, context_tokens, &sequences);
  if (status != AIRK_OK) return status;
  uint64_t chunks;
  const std::vector<Work> work = cut_rows(call, sequences, &chunks);
  const uint64_t threads = static_cast<uint64_t>(airk::thread_count(context));
  const uint64_t thread_floats = airk::attention_scratch_floats(call.head_dim, call.value_dim);
  // Sharing the chunks costs their memory, but leaves no thread idle. Both ways give the same bits.
  const bool share_chunks = work.size() < 4 * threads && chunks > work.size() && threads > 1;
  uint64_t most_rows = 0;
  for (const Work &each : work) most_rows = std::max(most_rows, each.rows.end - each.rows.begin);
  Partials partials = {nullptr, most_rows, airk::padded_dim(call.value_dim)};
  const uint64_t floats = threads * thread_floats + (share_chunks ? chunks * partials.floats_each() : 0);
  float *memory = static_cast<float *>(airk::scratch(context, floats * sizeof(float)));
  if (!memory) return airk::fail(context, AIRK_OUT_OF_MEMORY, "Cannot run attention: no memory for %llu floats", print(floats));
  const auto own = [&](int thread) { return memory + static_cast<uint64_t>(thread) * thread_floats; };

  // A multiply-add is about a sixteenth of a pass over an element; bringing a key in is about eight rows' worth.
  const uint64_t keys = (std::min<uint64_t>(context_tokens, share_chunks ? airk::kChunkKeys : context_tokens) + airk::kKeyBlock - 1) /
                        airk::kKeyBlock * airk::kKeyBlock;
  const int64_t grain = airk::grain_of(static_cast<int64_t>(keys * (airk::padded_dim(call.head_dim) + partials.padded) * (most_rows + 8) / 32));

  if (!share_chunks) {
    airk::parallel_for(context, static_cast<int64_t>(work.size()), grain, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; i++) kernel.run(call, work[static_cast<std::size_t>(i)].rows, own(thread));
    });
    return AIRK_OK;
  }
  partials.memory = memory + threads * thread_floats;
  airk::parallel_for(context, static_cast<int64_t>(chunks), grain, [&](int64_t begin, int64_t end, int thread) {
    for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
      const auto after = [](uint64_t chunk, const Work &each) { return chunk < each.first_partial; };
      const Work &each = *(std::upper_bound(work.begin(), work.end(), i, after) - 1);
      kernel.run_chunk(call, each.rows, each.first_chunk + i - each.first_partial, partials.of(i), own(thread));
    }
  });
  airk::parallel_for(context, static_cast<int64_t>(work.size()), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const Work &each = work[static_cast<std::size_t>(i)];
      std::vector<airk::AttentionPartial> parts(each.chunks);
      for (uint64_t chunk = 0; chunk < each.chunks; chunk++) parts[chunk] = partials.of(each.first_partial + chunk);
      kernel.merge(call, each.rows, parts.data(), each.chunks);
    }
  });
  return AIRK_OK;
}

}  // namespace

extern "C" airk_status airk_attention(airk_stream *stream, airk_ptr y, airk_ptr q, airk_ptr k_cache, airk_ptr v_cache,
                                      int32_t cache_type, airk_ptr sequences, uint64_t sequence_count, airk_ptr page_table,
                                      airk_ptr mask, airk_ptr first_visible, airk_ptr sinks, airk_ptr slopes, uint64_t tokens,
                                      uint64_t heads, uint64_t kv_heads, uint64_t head_dim, uint64_t value_dim, uint64_t page_tokens,
                                      uint64_t context_tokens, float scale, float softcap, int32_t precision) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  const airk_status invalid =
      airk::check_attention(stream, y, q, k_cache, v_cache, cache_type, sequences, sequence_count, page_table, first_visible, sinks, slopes,
                            tokens, heads, kv_heads, head_dim, value_dim, page_tokens, context_tokens, scale, softcap, precision);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  airk::AttentionCall call = {};
  call.y = at<float>(y);
  call.q = at<const float>(q);
  call.k_cache = at<const void>(k_cache);
  call.v_cache = at<const void>(v_cache);
  call.page_table = at<const int32_t>(page_table);
  call.mask = at<const uint8_t>(mask);
  call.first_visible = at<const int32_t>(first_visible);
  call.sinks = at<const float>(sinks);
  call.slopes = at<const float>(slopes);
  call.tokens = tokens;
  call.heads = heads;
  call.kv_heads = kv_heads;
  call.head_dim = head_dim;
  call.value_dim = value_dim;
  call.page_tokens = page_tokens;
  call.scale = scale;
  call.softcap = softcap;
  return airk::enqueue(stream, [=] {
    return run(context, call, kernel_of(context, cache_type), at<const int32_t>(sequences), sequence_count, context_tokens);
  });
}
