// airk_attention: flash attention over the paged cache, for prompts and for single tokens alike.
//
// The tokens of a sequence times the heads that share a key head are its rows. A block takes 16 rows of one key head, so that every key
// it reads serves a whole group of heads, and walks over the keys in tiles; softmax is computed online (Milakov and Gimelshein 2018,
// Dao et al. 2022). Keys are cut into chunks of 256 positions whose results are merged in order. Where there are few blocks
// ("split-K", Flash-Decoding) each chunk gets a block of its own and a second kernel merges; else one block does both. The
// arithmetic is the same to the bit, so a sequence's result depends neither on the split nor on what shares its pass.
#include <algorithm>
#include <cfloat>

#include "../cpu/arguments.h"
#include "context.h"

namespace airk {

namespace {

constexpr int kThreads = 128, kRows = 16, kLanes = kThreads / kRows;  // kLanes threads share a row
constexpr int kChunk = 256;
// Of the partial results of all chunks; where they would take more, blocks walk over the chunks.
constexpr uint64_t kMostScratchBytes = 64 << 20;
constexpr unsigned kRowMask = 0xffffffffu;

struct AttentionCall {
  float *y;
  const float *q;
  const void *k_cache, *v_cache;
  const int *sequences;
  const int *page_table;
  const uint8_t *mask;
  uint64_t tokens, heads, kv_heads, head_dim, page_tokens, context_tokens, sequence_count;
  float scale;
  float *partial;  // [tokens * heads][chunks][head_dim + 2]: sums, largest score, sum of weights; nullptr where blocks do it all
  uint64_t chunks;
  DeviceError *error;
};

struct Sequence {
  uint64_t index, first, tokens, cached, pages;  // pages: first entry in the page table
  __device__ uint64_t positions() const { return cached + tokens; }
};

// Returns false, and reports, where an entry is not one that the caller may have meant.
__device__ bool read_sequence(const AttentionCall &call, uint64_t index, Sequence *sequence) {
  uint64_t fields[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int field = call.sequences[4 * index + i];
    fields[i] = static_cast<uint64_t>(field);
    if (field >= 0) continue;
    report(call.error, Complaint::sequence_entry, static_cast<long long>(index), field, i);
    return false;
  }
  *sequence = Sequence{index, fields[0], fields[1], fields[2], fields[3]};
  const uint64_t end = sequence->first + sequence->tokens;
  if (end > call.tokens) {
    report(call.error, Complaint::sequence_end, static_cast<long long>(index), static_cast<long long>(end), static_cast<long long>(call.tokens));
    return false;
  }
  if (sequence->positions() > call.context_tokens) {
    report(call.error, Complaint::sequence_positions, static_cast<long long>(index), static_cast<long long>(sequence->positions()),
           static_cast<long long>(call.context_tokens));
    return false;
  }
  return true;
}

__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }

// Over the kLanes threads of a row, for all of them.
__device__ __forceinline__ float row_max(float value) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(kRowMask, value, lanes));
  return value;
}
__device__ __forceinline__ float row_sum(float value) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kRowMask, value, lanes);
  return value;
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
};

// kDims: head_dim, rounded up to 64, 128 or 256. kKeys: of a tile.
template <class Cached, int kDims, int kKeys>
__global__ void __launch_bounds__(kThreads, 1) attend(const AttentionCall call) {
  constexpr int kStride = kDims + 4, kElements = kDims / kLanes, kOwnKeys = kKeys / kLanes;
  static_assert(kChunk % kKeys == 0, "a tile lies within a chunk");
  __shared__ __align__(16) float q_tile[kRows][kStride], key_tile[kKeys][kStride];
  __shared__ float weight_tile[kRows][kKeys + 1];
  __shared__ uint64_t key_rows[kKeys];  // where a key lies in the cache, in rows of head_dim
  __shared__ int bad_page;

  const int thread = static_cast<int>(threadIdx.x), row = thread / kLanes, lane = thread % kLanes;
  const uint64_t group = call.heads / call.kv_heads, kv_head = blockIdx.y;
  const int dims = static_cast<int>(call.head_dim);

  // Blocks are dealt out over the sequences' row tiles; what is over returns.
  uint64_t tile = blockIdx.x;
  Sequence sequence{};
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
  const uint64_t own_out = (sequence.first + own_token) * call.heads + own_head;
  // Keys that some row of the block may see.
  const uint64_t last_token = min(first_row + kRows - 1, rows - 1) / group;
  const uint64_t seen = call.mask ? sequence.positions() : sequence.cached + last_token + 1;

  for (int d = lane; d < kDims; d += kLanes) q_tile[row][d] = d < dims ? call.q[own_out * call.head_dim + d] * call.scale : 0.0f;
  if (thread == 0) bad_page = 0;

  const uint64_t first_chunk = call.partial ? blockIdx.z : 0;
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
      const int keys = static_cast<int>(min(chunk_end - first_key, static_cast<uint64_t>(kKeys)));
      // Everyone is done with the last tile.
      __syncthreads();
      if (thread < keys) {
        const uint64_t position = first_key + thread, page = position / call.page_tokens;
        const int number = call.page_table[sequence.pages + page];
        if (number < 0) {
          report(call.error, Complaint::page, static_cast<long long>(page), number, static_cast<long long>(sequence.index));
          bad_page = 1;
        }
        key_rows[thread] = (static_cast<uint64_t>(max(number, 0)) * call.kv_heads + kv_head) * call.page_tokens + position % call.page_tokens;
      }
      __syncthreads();
      if (bad_page) return;
      const auto load_tile = [&](const void *cache) {
        for (int i = thread; i < kKeys * kDims; i += kThreads) {
          const int key = i / kDims, d = i % kDims;
          const bool exists = key < keys && d < dims;
          key_tile[key][d] = exists ? as_float(static_cast<const Cached *>(cache)[key_rows[key] * call.head_dim + d]) : 0.0f;
        }
      };
      load_tile(call.k_cache);
      __syncthreads();

      // A thread scores every kLanes-th key.
      float score[kOwnKeys];
#pragma unroll
      for (int j = 0; j < kOwnKeys; j++) score[j] = 0.0f;
      for (int d = 0; d < kDims; d += 4) {
        const float4 a = *reinterpret_cast<const float4 *>(&q_tile[row][d]);
#pragma unroll
        for (int j = 0; j < kOwnKeys; j++) {
          const float4 b = *reinterpret_cast<const float4 *>(&key_tile[lane + j * kLanes][d]);
          score[j] = fmaf(a.x, b.x, score[j]);
          score[j] = fmaf(a.y, b.y, score[j]);
          score[j] = fmaf(a.z, b.z, score[j]);
          score[j] = fmaf(a.w, b.w, score[j]);
        }
      }
      float most = largest;
#pragma unroll
      for (int j = 0; j < kOwnKeys; j++) {
        const int key = lane + j * kLanes;
        const uint64_t position = first_key + key;
        bool sees = key < keys;
        if (sees && position >= sequence.cached) {
          const uint64_t other = position - sequence.cached;
          sees = call.mask ? call.mask[(sequence.first + own_token) * call.tokens + sequence.first + other] != 0 : other <= own_token;
        }
        if (!sees) score[j] = -INFINITY;
        most = fmaxf(most, score[j]);
      }
      most = row_max(most);
      const float factor = rescale(largest, most);
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < kOwnKeys; j++) {
        const float weight = rescale(score[j], most);
        weight_tile[row][lane + j * kLanes] = weight;
        added += weight;
      }
      weights = weights * factor + row_sum(added);
      largest = most;
      // The scores are done with the keys, and each row's weights are there.
      __syncthreads();
      load_tile(call.v_cache);
      __syncthreads();
#pragma unroll
      for (int e = 0; e < kElements; e++) sum[e] *= factor;
      for (int key = 0; key < keys; key++) {
        const float weight = weight_tile[row][key];
#pragma unroll
        for (int e = 0; e < kElements; e++) sum[e] = fmaf(weight, key_tile[key][lane + e * kLanes], sum[e]);
      }
    }
    if (call.partial) break;
    merged.add(largest, weights);
#pragma unroll
    for (int e = 0; e < kElements; e++) total[e] = total[e] * merged.old_factor + sum[e] * merged.new_factor;
  }
  if (own_row >= rows) return;

  if (call.partial) {
    float *to = call.partial + (own_out * call.chunks + first_chunk) * (call.head_dim + 2);
#pragma unroll
    for (int e = 0; e < kElements; e++) {
      const int d = lane + e * kLanes;
      if (d < dims) to[d] = sum[e];
    }
    if (lane == 0) {
      to[dims] = largest;
      to[dims + 1] = weights;
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < kElements; e++) {
    const int d = lane + e * kLanes;
    if (d < dims) call.y[own_out * call.head_dim + d] = total[e] / merged.weights;
  }
}

// One block a token and head.
__global__ void __launch_bounds__(kThreads) merge_chunks(const AttentionCall call) {
  const uint64_t out = static_cast<uint64_t>(blockIdx.x) * gridDim.y + blockIdx.y, token = blockIdx.x;
  Sequence sequence{};
  bool found = false;
  for (uint64_t index = 0; index < call.sequence_count && !found; index++) {
    if (!read_sequence(call, index, &sequence)) return;
    found = token >= sequence.first && token < sequence.first + sequence.tokens;
  }
  // A token that belongs to nobody is left alone.
  if (!found) return;
  const uint64_t seen = call.mask ? sequence.positions() : sequence.cached + token - sequence.first + 1;
  const uint64_t chunks = (seen + kChunk - 1) / kChunk;
  const float *from = call.partial + out * call.chunks * (call.head_dim + 2);
  for (uint64_t d = threadIdx.x; d < call.head_dim; d += kThreads) {
    Merged merged;
    float total = 0.0f;
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
      const float *part = from + chunk * (call.head_dim + 2);
      merged.add(part[call.head_dim], part[call.head_dim + 1]);
      total = total * merged.old_factor + part[d] * merged.new_factor;
    }
    call.y[out * call.head_dim + d] = total / merged.weights;
  }
}

template <class Cached> cudaError_t start(const AttentionCall &call, dim3 grid, cudaStream_t stream) {
  const auto started = launch(grid, kThreads, 0, stream);
  if (call.head_dim <= 64) return started(attend<Cached, 64, 32>, call);
  if (call.head_dim <= 128) return started(attend<Cached, 128, 32>, call);
  return started(attend<Cached, 256, 16>, call);
}

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_attention(airk_stream *stream, airk_ptr y, airk_ptr q, airk_ptr k_cache, airk_ptr v_cache,
                                      int32_t cache_type, airk_ptr sequences, uint64_t sequence_count, airk_ptr page_table,
                                      airk_ptr mask, uint64_t tokens, uint64_t heads, uint64_t kv_heads, uint64_t head_dim,
                                      uint64_t page_tokens, uint64_t context_tokens, float scale) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  airk_context *context = stream->context;
  airk_status status = check_attention(stream, y, q, k_cache, v_cache, cache_type, sequences, sequence_count, page_table, tokens, heads,
                                       kv_heads, head_dim, page_tokens, context_tokens, scale);
  if (status != AIRK_OK) return status;
  constexpr uint64_t kMostDims = 256, kMostHeads = 65535;
  if (head_dim > kMostDims || heads > kMostHeads) {
    return fail(context, AIRK_UNSUPPORTED, "Cannot run attention: head_dim is %llu of %llu heads, the CUDA library takes at most %llu and %llu",
                static_cast<unsigned long long>(head_dim), static_cast<unsigned long long>(heads),
                static_cast<unsigned long long>(kMostDims), static_cast<unsigned long long>(kMostHeads));
  }
  AttentionCall call = {at<float>(y),
                        at<const float>(q),
                        at<const void>(k_cache),
                        at<const void>(v_cache),
                        at<const int>(sequences),
                        at<const int>(page_table),
                        at<const uint8_t>(mask),
                        tokens,
                        heads,
                        kv_heads,
                        head_dim,
                        page_tokens,
                        context_tokens,
                        sequence_count,
                        scale,
                        nullptr,
                        (context_tokens + kChunk - 1) / kChunk,
                        context->device_error};
  // Each sequence may leave a tile of rows incomplete.
  const uint64_t tiles = (tokens * (heads / kv_heads) + kRows - 1) / kRows + sequence_count;
  const uint64_t scratch_bytes = tokens * heads * call.chunks * (head_dim + 2) * sizeof(float);
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
    const cudaError_t error = cache_type == AIRK_F16 ? start<__half>(call, grid, handle) : start<float>(call, grid, handle);
    if (error != cudaSuccess || !split) return error;
    return launch(dim3(static_cast<unsigned>(tokens), static_cast<unsigned>(heads)), kThreads, 0, handle)(merge_chunks, call);
  });
}
