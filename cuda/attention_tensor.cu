// Attention of prompts on tensor cores: FlashAttention-2 (Dao 2023, arXiv:2307.08691) over the paged cache.
//
// A block takes 64 rows of one key head, a row being a token and one of the heads that share the key head, and a warp 16 of them. Queries,
// keys, values and the softmax's weights are float16, all sums and the softmax itself float32. Keys and then values of a tile lie in the
// same shared memory; scores and weights stay in the registers that the tensor cores leave them in and take them from.
#include <algorithm>

#include "attention.h"
#include "ptx.h"

namespace airk {

namespace {

constexpr int kThreads = 128, kRows = 64;

// Over the four lanes that hold a row, for all of them.
__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(kRowMask, value, 1));
  return fmaxf(value, __shfl_xor_sync(kRowMask, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(kRowMask, value, 1);
  return value + __shfl_xor_sync(kRowMask, value, 2);
}

// One row of the two that a lane holds parts of.
struct TensorRow {
  uint64_t token, head, out, first_seen;
  float slope, largest, weights;
};

// kDims: what head_dim and value_dim are rounded up to. kKeys: of a tile.
template <class Cached, int kDims, int kKeys>
__global__ void __launch_bounds__(kThreads, 1) attend_tiles(const AttentionCall call) {
  // The eight rows that ldmatrix reads at once lie in different banks.
  constexpr int kStride = kDims + 8, kKeyTiles = kKeys / 8, kDimTiles = kDims / 8;
  static_assert(kKeys % 16 == 0 && kDims % 16 == 0 && kKeys <= kThreads, "whole steps of the tensor cores");
  __shared__ __align__(16) __half q_tile[kRows][kStride], tile[kKeys][kStride];
  __shared__ typename Cached::Place key_places[kKeys], value_places[kKeys];
  __shared__ int bad_page;

  const int thread = static_cast<int>(threadIdx.x), lane = thread & 31, warp = thread / 32;
  const uint64_t group = call.heads / call.kv_heads, kv_head = blockIdx.y;
  const int key_dim = static_cast<int>(call.keys.dim), value_dim = static_cast<int>(call.values.dim);

  // Blocks are dealt out over the sequences' row tiles; what is over returns.
  uint64_t block = blockIdx.x, index = 0;
  PassSequence sequence{};
  for (; index < call.sequence_count; index++) {
    if (!read_sequence(call, index, &sequence)) return;
    const uint64_t blocks = (sequence.tokens * group + kRows - 1) / kRows;
    if (block < blocks) break;
    block -= blocks;
  }
  if (index == call.sequence_count) return;

  const uint64_t rows = sequence.tokens * group, first_row = block * kRows;
  const uint64_t first_token = first_row / group, last_token = min(first_row + kRows - 1, rows - 1) / group;
  // Keys that some row of the block may see: [begin, seen).
  const uint64_t seen = call.mask ? sequence.positions() : sequence.cached + last_token + 1;
  uint64_t begin = 0;
  if (call.first_visible) {
    begin = seen;
    int wrong = 0;
    for (uint64_t token = first_token; token <= last_token; token++) {
      wrong |= !accept(call, check_first_visible(sequence, token, call.first_visible[sequence.first_token + token]));
      begin = min(begin, call.first_of(sequence, token));
    }
    if (__syncthreads_or(wrong)) return;
  }

  TensorRow own[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const uint64_t row = min(first_row + 16 * warp + 8 * h + lane / 4, rows - 1);
    own[h].token = row / group;
    own[h].head = kv_head * group + row % group;
    own[h].out = (sequence.first_token + own[h].token) * call.heads + own[h].head;
    own[h].first_seen = call.first_of(sequence, own[h].token);
    own[h].slope = call.slopes ? call.slopes[own[h].head] : 0.0f;
    own[h].largest = -INFINITY;
    own[h].weights = 0.0f;
  }

  for (int i = thread; i < kRows * kDims / 2; i += kThreads) {
    const int r = i / (kDims / 2), d = i % (kDims / 2) * 2;
    const uint64_t row = min(first_row + r, rows - 1);
    const float *q = call.q + ((sequence.first_token + row / group) * call.heads + kv_head * group + row % group) * call.keys.dim;
    const float low = d < key_dim ? q[d] * call.scale : 0.0f, high = d + 1 < key_dim ? q[d + 1] * call.scale : 0.0f;
    *reinterpret_cast<unsigned *>(&q_tile[r][d]) = two_halves(low, high);
  }
  if (thread == 0) bad_page = 0;

  const auto load_tile = [&](const void *cache, const typename Cached::Place *places, int dim) {
    for (int i = thread; i < kKeys * kDimTiles; i += kThreads) {
      const int key = i / kDimTiles, d = i % kDimTiles * 8;
      *reinterpret_cast<uint4 *>(&tile[key][d]) = Cached::read_eight(cache, places[key], d, dim);
    }
  };

  float sum[kDimTiles][4];
#pragma unroll
  for (int t = 0; t < kDimTiles; t++)
#pragma unroll
    for (int j = 0; j < 4; j++) sum[t][j] = 0.0f;

  for (uint64_t first_key = begin / kKeys * kKeys; first_key < seen; first_key += kKeys) {
    const int keys = static_cast<int>(min(seen - first_key, static_cast<uint64_t>(kKeys)));
    // Everyone is done with the last tile.
    __syncthreads();
    if (thread < kKeys) {
      key_places[thread] = value_places[thread] = Cached::nowhere();
      const uint64_t position = first_key + thread, page = position / call.page_tokens, offset = position % call.page_tokens;
      if (thread < keys && page >= begin / call.page_tokens) {
        const int number = call.page_table[sequence.first_page_entry + page];
        if (accept(call, check_page(index, page, number))) {
          key_places[thread] = Cached::place(call.keys, static_cast<uint64_t>(number), kv_head, offset);
          // Values of their own, or the beginnings of the keys.
          value_places[thread] = Cached::place(call.v_cache ? call.values : call.keys, static_cast<uint64_t>(number), kv_head, offset);
        } else {
          bad_page = 1;
        }
      }
    }
    __syncthreads();
    if (bad_page) return;
    load_tile(call.k_cache, key_places, key_dim);
    __syncthreads();

    float score[kKeyTiles][4];
#pragma unroll
    for (int t = 0; t < kKeyTiles; t++)
#pragma unroll
      for (int j = 0; j < 4; j++) score[t][j] = 0.0f;
#pragma unroll 4
    for (int d = 0; d < kDims; d += 16) {
      uint32_t a[4];
      load_matrix(a, &q_tile[16 * warp + (lane & 15)][d + (lane >> 4) * 8]);
#pragma unroll
      for (int t = 0; t < kKeyTiles; t += 2) {
        uint32_t pair[4];
        load_matrix(pair, &tile[8 * t + (lane >> 4) * 8 + (lane & 7)][d + ((lane >> 3) & 1) * 8]);
        const uint32_t even[2] = {pair[0], pair[1]}, odd[2] = {pair[2], pair[3]};
        mma_f16(score[t], a, even);
        mma_f16(score[t + 1], a, odd);
      }
    }

    // score[t][2 h + j]: of row h and key 8 t + lane % 4 * 2 + j.
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float most = own[h].largest;
#pragma unroll
      for (int t = 0; t < kKeyTiles; t++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          float &each = score[t][2 * h + j];
          const int key = 8 * t + lane % 4 * 2 + j;
          const uint64_t position = first_key + key;
          each = score_of(call, each, own[h].slope, sequence, own[h].token, position);
          if (key >= keys || !is_seen(call, sequence, own[h].token, own[h].first_seen, position)) each = -INFINITY;
          most = fmaxf(most, each);
        }
      most = quad_max(most);
      const float factor = rescale(own[h].largest, most);
      float added = 0.0f;
#pragma unroll
      for (int t = 0; t < kKeyTiles; t++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          float &each = score[t][2 * h + j];
          each = each == -INFINITY ? 0.0f : __expf(each - most);
          added += each;
        }
      own[h].weights = own[h].weights * factor + quad_sum(added);
      own[h].largest = most;
#pragma unroll
      for (int t = 0; t < kDimTiles; t++) sum[t][2 * h] *= factor, sum[t][2 * h + 1] *= factor;
    }

    // Everyone is done with the keys.
    __syncthreads();
    load_tile(call.v_cache ? call.v_cache : call.k_cache, value_places, value_dim);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kKeys; k += 16) {
      const float *even_keys = score[k / 8], *odd_keys = score[k / 8 + 1];
      const uint32_t a[4] = {two_halves(even_keys[0], even_keys[1]), two_halves(even_keys[2], even_keys[3]), two_halves(odd_keys[0], odd_keys[1]),
                             two_halves(odd_keys[2], odd_keys[3])};
#pragma unroll
      for (int t = 0; t < kDimTiles; t += 2) {
        uint32_t pair[4];
        load_matrix<4, true>(pair, &tile[k + ((lane >> 3) & 1) * 8 + (lane & 7)][8 * t + (lane >> 4) * 8]);
        const uint32_t even[2] = {pair[0], pair[1]}, odd[2] = {pair[2], pair[3]};
        mma_f16(sum[t], a, even);
        mma_f16(sum[t + 1], a, odd);
      }
    }
  }

#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (first_row + 16 * warp + 8 * h + lane / 4 >= rows) continue;
    Merged merged;
    merged.largest = own[h].largest;
    merged.weights = own[h].weights;
    const float kept = merged.add_sink(call.sinks, own[h].head);
#pragma unroll
    for (int t = 0; t < kDimTiles; t++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int d = 8 * t + lane % 4 * 2 + j;
        if (d < value_dim) call.y[own[h].out * call.values.dim + d] = sum[t][2 * h + j] * kept / merged.weights;
      }
  }
}

template <class Cached> cudaError_t start(const AttentionCall &call, cudaStream_t stream) {
  // Each sequence may leave a tile of rows incomplete.
  const uint64_t blocks = (call.tokens * (call.heads / call.kv_heads) + kRows - 1) / kRows + call.sequence_count;
  const auto started = launch(dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(call.kv_heads)), kThreads, 0, stream);
  const uint64_t dim = std::max(call.keys.dim, call.values.dim);
  if (dim <= 64) return started(attend_tiles<Cached, 64, 64>, call);
  if (dim <= 96) return started(attend_tiles<Cached, 96, 64>, call);
  if (dim <= 128) return started(attend_tiles<Cached, 128, 64>, call);
  static_assert(kMostTensorDims == 256, "the largest kernel takes them");
  return started(attend_tiles<Cached, 256, 16>, call);
}

}  // namespace

cudaError_t attend_tensor(const AttentionCall &call, int32_t cache_type, cudaStream_t stream) {
  return cache_type == AIRK_F16 ? start<CachedPlain<__half>>(call, stream) : start<CachedQ8>(call, stream);
}

}  // namespace airk
