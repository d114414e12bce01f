// airk_attention: flash attention over the paged cache, for prompts and for single tokens alike.
//
// The tokens of a sequence times the heads that share a key head are its rows. A block takes 16 rows of one key head, so that every key
// it reads serves a whole group of heads, and walks over the keys in tiles; softmax is computed online (Milakov and Gimelshein 2018,
// Dao et al. 2022). Keys are cut into chunks of 256 positions whose results are merged in order. Where there are few blocks
// ("split-K", Flash-Decoding) each chunk gets a block of its own and a second kernel merges; else one block does both. The
// arithmetic is the same to the bit, so a sequence's result depends neither on the split nor on what shares its pass. Prompts that may be
// computed in float16 go to attention_tensor.cu.
#include <algorithm>
#include <cfloat>

#include "../cpu/arguments.h"
#include "attention.h"
#include "context.h"

namespace airk {

namespace {

constexpr int kRows = 16, kMergeThreads = 128;
constexpr int kChunk = 256;
// Of the partial results of all chunks; where they would take more, blocks walk over the chunks.
constexpr uint64_t kMostScratchBytes = 64 << 20;
constexpr uint64_t kLeastTensorTokens = 16;  // of a sequence, on average

// Over the kLanes threads of a row, for all of them.
template <int kLanes> __device__ __forceinline__ float row_max(float value) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(kRowMask, value, lanes));
  return value;
}
template <int kLanes> __device__ __forceinline__ float row_sum(float value) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kRowMask, value, lanes);
  return value;
}

// kKeyDims, kValueDims: what head_dim and value_dim are rounded up to. kKeys: of a tile, which holds kSlice elements of each at a time.
// kThreads / kRows threads share a row: as many as keep its sums in registers.
template <class Cached, int kKeyDims, int kValueDims, int kKeys, int kSlice, int kThreads>
__global__ void __launch_bounds__(kThreads, 1) attend(const AttentionCall call) {
  constexpr int kLanes = kThreads / kRows;
  constexpr int kElements = kValueDims / kLanes, kSliceElements = kSlice / kLanes, kOwnKeys = kKeys / kLanes;
  static_assert(kChunk % kKeys == 0, "a tile lies within a chunk");
  static_assert(kKeyDims % kSlice == 0 && kValueDims % kSlice == 0, "whole slices");
  __shared__ __align__(16) float q_tile[kRows][kKeyDims + 4], key_tile[kKeys][kSlice + 4];
  __shared__ float weight_tile[kRows][kKeys + 1];
  __shared__ typename Cached::Place key_places[kKeys], value_places[kKeys];
  __shared__ int bad_page;

  const int thread = static_cast<int>(threadIdx.x), row = thread / kLanes, lane = thread % kLanes;
  const uint64_t group = call.heads / call.kv_heads, kv_head = blockIdx.y;
  const int key_dim = static_cast<int>(call.keys.dim), value_dim = static_cast<int>(call.values.dim);

  // Blocks are dealt out over the sequences' row tiles; what is over returns.
  uint64_t tile = blockIdx.x;
  PassSequence sequence{};
  uint64_t index = 0;
  for (; index < call.sequence_count; index++) {
    if (!read_sequence(call, index, &sequence)) return;
    const uint64_t tiles = (sequence.tokens * group + kRows - 1) / kRows;
    if (tile < tiles) break;
    tile -= tiles;
  }
  if (index == call.sequence_count) return;

  const uint64_t rows = sequence.tokens * group, first_row = tile * kRows, own_row = first_row + row;
  const uint64_t own_token = min(own_row, rows - 1) / group, own_head = kv_head * group + min(own_row, rows - 1) % group;
  const uint64_t own_out = (sequence.first_token + own_token) * call.heads + own_head;
  // Keys that some row of the block may see: [begin, seen).
  const uint64_t last_token = min(first_row + kRows - 1, rows - 1) / group;
  const uint64_t seen = call.mask ? sequence.positions() : sequence.cached + last_token + 1;
  const uint64_t own_first = call.first_of(sequence, own_token);
  uint64_t begin = own_first;
  if (call.first_visible) {
    const SequenceFinding finding = check_first_visible(sequence, own_token, call.first_visible[sequence.first_token + own_token]);
    if (__syncthreads_or(!accept(call, finding))) return;
    for (uint64_t token = first_row / group; token <= last_token; token++) begin = min(begin, call.first_of(sequence, token));
  }
  const float slope = call.slopes ? call.slopes[own_head] : 0.0f;

  for (int d = lane; d < kKeyDims; d += kLanes) q_tile[row][d] = d < key_dim ? call.q[own_out * key_dim + d] * call.scale : 0.0f;
  if (thread == 0) bad_page = 0;

  const uint64_t first_chunk = call.partial ? blockIdx.z : begin / kChunk;
  const uint64_t end_chunk = call.partial ? first_chunk + 1 : (seen + kChunk - 1) / kChunk;
  float total[kElements], sum[kElements];
#pragma unroll
  for (int e = 0; e < kElements; e++) total[e] = 0.0f;
  Merged merged;
  float largest = -INFINITY, weights = 0.0f;

  for (uint64_t chunk = first_chunk; chunk < end_chunk; chunk++) {
#pragma unroll
    for (int e = 0; e < kElements; e++) sum[e] = 0.0f;
    largest = -INFINITY;
    weights = 0.0f;
    const uint64_t chunk_end = min(seen, (chunk + 1) * kChunk);
    for (uint64_t first_key = chunk * kChunk; first_key < chunk_end; first_key += kKeys) {
      // Tiles lie at fixed positions, whatever is visible of them.
      if (first_key + kKeys <= begin) continue;
      const int keys = static_cast<int>(min(chunk_end - first_key, static_cast<uint64_t>(kKeys)));
      // Everyone is done with the last tile.
      __syncthreads();
      if (thread < keys) {
        const uint64_t position = first_key + thread, page = position / call.page_tokens, offset = position % call.page_tokens;
        key_places[thread] = value_places[thread] = Cached::nowhere();
        if (page >= begin / call.page_tokens) {
          const int number = call.page_table[sequence.first_page_entry + page];
          if (accept(call, check_page(index, page, number))) {
            key_places[thread] = Cached::place(call.keys, static_cast<uint64_t>(number), kv_head, offset);
            // Values of their own, or the beginnings of the keys.
            const CacheShape &values = call.v_cache ? call.values : call.keys;
            value_places[thread] = Cached::place(values, static_cast<uint64_t>(number), kv_head, offset);
          } else {
            bad_page = 1;
          }
        }
      }
      __syncthreads();
      if (bad_page) return;
      const auto load_slice = [&](const void *cache, const typename Cached::Place *places, int first, int dim) {
        for (int i = thread; i < kKeys * kSlice; i += kThreads) {
          const int key = i / kSlice, d = first + i % kSlice;
          key_tile[key][i % kSlice] = key < keys && d < dim ? Cached::read(cache, places[key], d) : 0.0f;
        }
      };

      // A thread scores every kLanes-th key.
      float score[kOwnKeys];
#pragma unroll
      for (int j = 0; j < kOwnKeys; j++) score[j] = 0.0f;
      for (int first = 0; first < key_dim; first += kSlice) {
        // Everyone is done with the last slice.
        if (first > 0) __syncthreads();
        load_slice(call.k_cache, key_places, first, key_dim);
        __syncthreads();
        for (int d = 0; d < kSlice; d += 4) {
          const float4 a = *reinterpret_cast<const float4 *>(&q_tile[row][first + d]);
#pragma unroll
          for (int j = 0; j < kOwnKeys; j++) {
            const float4 b = *reinterpret_cast<const float4 *>(&key_tile[lane + j * kLanes][d]);
            score[j] = fmaf(a.x, b.x, score[j]);
            score[j] = fmaf(a.y, b.y, score[j]);
            score[j] = fmaf(a.z, b.z, score[j]);
            score[j] = fmaf(a.w, b.w, score[j]);
          }
        }
      }
      float most = largest;
#pragma unroll
      for (int j = 0; j < kOwnKeys; j++) {
        const int key = lane + j * kLanes;
        const uint64_t position = first_key + key;
        score[j] = score_of(call, score[j], slope, sequence, own_token, position);
        if (key >= keys || !is_seen(call, sequence, own_token, own_first, position)) score[j] = -INFINITY;
        most = fmaxf(most, score[j]);
      }
      most = row_max<kLanes>(most);
      const float factor = rescale(largest, most);
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < kOwnKeys; j++) {
        const float weight = rescale(score[j], most);
        weight_tile[row][lane + j * kLanes] = weight;
        added += weight;
      }
      weights = weights * factor + row_sum<kLanes>(added);
      largest = most;
#pragma unroll
      for (int e = 0; e < kElements; e++) sum[e] *= factor;
#pragma unroll
      for (int first = 0; first < kValueDims; first += kSlice) {
        if (first >= value_dim) break;
        // The scores are done with the keys and each row's weights are there; then everyone is done with the last slice.
        __syncthreads();
        load_slice(call.v_cache ? call.v_cache : call.k_cache, value_places, first, value_dim);
        __syncthreads();
        for (int key = 0; key < keys; key++) {
          const float weight = weight_tile[row][key];
#pragma unroll
          for (int e = 0; e < kSliceElements; e++) {
            sum[first / kLanes + e] = fmaf(weight, key_tile[key][lane + e * kLanes], sum[first / kLanes + e]);
          }
        }
      }
    }
    if (call.partial) break;
    merged.add(largest, weights);
#pragma unroll
    for (int e = 0; e < kElements; e++) total[e] = total[e] * merged.old_factor + sum[e] * merged.new_factor;
  }
  if (own_row >= rows) return;

  if (call.partial) {
    float *to = call.partial + (own_out * call.chunks + first_chunk) * (call.values.dim + 2);
#pragma unroll
    for (int e = 0; e < kElements; e++) {
      const int d = lane + e * kLanes;
      if (d < value_dim) to[d] = sum[e];
    }
    if (lane == 0) {
      to[value_dim] = largest;
      to[value_dim + 1] = weights;
    }
    return;
  }
  const float kept = merged.add_sink(call.sinks, own_head);
#pragma unroll
  for (int e = 0; e < kElements; e++) {
    const int d = lane + e * kLanes;
    if (d < value_dim) call.y[own_out * value_dim + d] = total[e] * kept / merged.weights;
  }
}

// One block a token and head.
__global__ void __launch_bounds__(kMergeThreads) merge_chunks(const AttentionCall call) {
  const uint64_t out = static_cast<uint64_t>(blockIdx.x) * gridDim.y + blockIdx.y, token = blockIdx.x;
  PassSequence sequence{};
  bool found = false;
  for (uint64_t index = 0; index < call.sequence_count && !found; index++) {
    if (!read_sequence(call, index, &sequence)) return;
    found = token >= sequence.first_token && token < sequence.first_token + sequence.tokens;
  }
  // A token that belongs to nobody is left alone.
  if (!found) return;
  const uint64_t own = token - sequence.first_token, seen = call.mask ? sequence.positions() : sequence.cached + own + 1;
  const uint64_t first_chunk = call.first_of(sequence, own) / kChunk, end_chunk = (seen + kChunk - 1) / kChunk;
  const uint64_t value_dim = call.values.dim;
  const float *from = call.partial + out * call.chunks * (value_dim + 2);
  for (uint64_t d = threadIdx.x; d < value_dim; d += kMergeThreads) {
    Merged merged;
    float total = 0.0f;
    for (uint64_t chunk = first_chunk; chunk < end_chunk; chunk++) {
      const float *part = from + chunk * (value_dim + 2);
      merged.add(part[value_dim], part[value_dim + 1]);
      total = total * merged.old_factor + part[d] * merged.new_factor;
    }
    const float kept = merged.add_sink(call.sinks, blockIdx.y);
    call.y[out * value_dim + d] = total * kept / merged.weights;
  }
}

template <class Cached> cudaError_t start(const AttentionCall &call, dim3 grid, cudaStream_t stream) {
  constexpr int kFew = 128, kMany = 256;
  const auto started = launch(grid, kFew, 0, stream);
  const uint64_t dim = std::max(call.keys.dim, call.values.dim);
  if (dim <= 64) return started(attend<Cached, 64, 64, 32, 64, kFew>, call);
  if (dim <= 128) return started(attend<Cached, 128, 128, 32, 128, kFew>, call);
  if (dim <= 256) return started(attend<Cached, 256, 256, 16, 256, kFew>, call);
  static_assert(kMostAttentionKey == 576 && kMostAttentionValue == 512, "the largest kernel takes them");
  return launch(grid, kMany, 0, stream)(attend<Cached, 576, 512, 32, 64, kMany>, call);
}

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_attention(airk_stream *stream, airk_ptr y, airk_ptr q, airk_ptr k_cache, airk_ptr v_cache,
                                      int32_t cache_type, airk_ptr sequences, uint64_t sequence_count, airk_ptr page_table,
                                      airk_ptr mask, airk_ptr first_visible, airk_ptr sinks, airk_ptr slopes, uint64_t tokens,
                                      uint64_t heads, uint64_t kv_heads, uint64_t head_dim, uint64_t value_dim, uint64_t page_tokens,
                                      uint64_t context_tokens, float scale, float softcap, int32_t precision) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  airk_context *context = stream->context;
  airk_status status =
      check_attention(stream, y, q, k_cache, v_cache, cache_type, sequences, sequence_count, page_table, first_visible, sinks, slopes, tokens,
                      heads, kv_heads, head_dim, value_dim, page_tokens, context_tokens, scale, softcap, precision);
  if (status != AIRK_OK) return status;
  constexpr uint64_t kMostHeads = 65535;
  if (heads > kMostHeads) {
    return fail(context, AIRK_UNSUPPORTED, "Cannot run attention: %llu heads, the CUDA library takes at most %llu",
                static_cast<unsigned long long>(heads), static_cast<unsigned long long>(kMostHeads));
  }
  AttentionCall call = {};
  call.y = at<float>(y);
  call.q = at<const float>(q);
  call.k_cache = at<const void>(k_cache);
  call.v_cache = at<const void>(v_cache);
  call.keys = {kv_heads, page_tokens, head_dim};
  call.values = {kv_heads, page_tokens, value_dim};
  call.sequences = at<const int>(sequences);
  call.page_table = at<const int>(page_table);
  call.mask = at<const uint8_t>(mask);
  call.first_visible = at<const int>(first_visible);
  call.sinks = at<const float>(sinks);
  call.slopes = at<const float>(slopes);
  call.tokens = tokens;
  call.heads = heads;
  call.kv_heads = kv_heads;
  call.page_tokens = page_tokens;
  call.context_tokens = context_tokens;
  call.sequence_count = sequence_count;
  call.scale = scale;
  call.softcap = softcap;
  call.chunks = (context_tokens + kChunk - 1) / kChunk;
  call.error = context->device_error;
  // Tiles of tensor cores want many rows; tokens that come alone want their keys split.
  const bool many = tokens / sequence_count >= kLeastTensorTokens;
  if (precision == 1 && many && context->major >= 8 && cache_type != AIRK_F32 && std::max(head_dim, value_dim) <= kMostTensorDims) {
    return enqueue_on(stream, "attention", [&](cudaStream_t handle) { return attend_tensor(call, cache_type, handle); });
  }
  // Each sequence may leave a tile of rows incomplete.
  const uint64_t tiles = (tokens * (heads / kv_heads) + kRows - 1) / kRows + sequence_count;
  const uint64_t scratch_bytes = tokens * heads * call.chunks * (value_dim + 2) * sizeof(float);
  const bool split = call.chunks > 1 && call.chunks <= 65535 && scratch_bytes <= std::min(kMostScratchBytes, most_scratch_bytes(stream)) &&
                     tiles * kv_heads < static_cast<uint64_t>(context->multiprocessors) * 4;
  if (split && may_enqueue(stream)) {
    void *memory = nullptr;
    status = scratch_of(stream, "attention", scratch_bytes, &memory);
    if (status != AIRK_OK) return status;
    call.partial = static_cast<float *>(memory);
  }
  return enqueue_on(stream, "attention", [&](cudaStream_t handle) {
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(kv_heads), split ? static_cast<unsigned>(call.chunks) : 1);
    const cudaError_t error = cache_type == AIRK_F32   ? start<CachedPlain<float>>(call, grid, handle)
                              : cache_type == AIRK_F16 ? start<CachedPlain<__half>>(call, grid, handle)
                                                       : start<CachedQ8>(call, grid, handle);
    if (error != cudaSuccess || !split) return error;
    return launch(dim3(static_cast<unsigned>(tokens), static_cast<unsigned>(heads)), kMergeThreads, 0, handle)(merge_chunks, call);
  });
}
