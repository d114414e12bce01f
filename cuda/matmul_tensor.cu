// Products of many tokens on tensor cores: weights are decoded into tiles of bfloat16 that the tensor cores read from shared memory.
//
// A block computes 128 rows x kTokens tokens, 32 columns at a time in two buffers: while the tensor cores work on one, activations
// (bfloat16, prepared once a call) are copied into the other and the next block of weights is decoded.
#include "matmul.h"
#include "outlier_walk.h"

namespace airk {

namespace {

// A row of a tile is 80 bytes: the eight rows that ldmatrix reads at once lie in different banks.
constexpr int kThreads = 256, kRows = 128, kDepth = 32, kStride = kDepth + 8;
constexpr int kMostTokens = 128, kFewTokens = 32;

__device__ __forceinline__ unsigned pack(float low, float high) {
  return static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
         static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16;
}

// packed [groups][padded tokens][blocks * 32] bfloat16 = x times the column scale, zero beyond cols and tokens.
__global__ void __launch_bounds__(kThreads) pack_rows(const MatmulCall call, unsigned *packed) {
  const Weight &w = call.weight;
  const int token = static_cast<int>(blockIdx.y);
  const uint64_t pair = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x, pairs = w.blocks * 16;
  if (pair >= pairs) return;
  float values[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint64_t col = 2 * pair + i;
    values[i] = col < w.cols && token < call.tokens ? call.group().x[token * call.x_stride + col] * column_scale_of(w, col) : 0.0f;
  }
  packed[(static_cast<uint64_t>(blockIdx.z) * gridDim.y + token) * pairs + pair] = pack(values[0], values[1]);
}

// kTokens is 128: 4 x 2 warps of 32 rows x 64 tokens; or 32: 8 warps of 16 rows x 32 tokens.
template <Format F, int kTokens> __global__ void __launch_bounds__(kThreads, 1) multiply_tensor(const MatmulCall call, const __nv_bfloat16 *packed) {
  constexpr int kTokenWarps = kTokens == kMostTokens ? 2 : 1, kRowWarps = 8 / kTokenWarps;
  constexpr int kRowTiles = kRows / kRowWarps / 16, kTokenTiles = kTokens / kTokenWarps / 8;
  using D = Decoder<F>;
  __shared__ __align__(16) __nv_bfloat16 w_tile[2][kRows][kStride], x_tile[2][kTokens][kStride];
  __shared__ float table[D::kUsesTable ? kTableFloats : 1];
  const Weight &w = call.weight;
  const D decoder(w, table);
  const int thread = static_cast<int>(threadIdx.x), lane = thread & 31, warp = thread / 32;
  const int warp_row = warp / kTokenWarps * kRowTiles * 16, warp_token = warp % kTokenWarps * kTokenTiles * 8;
  const GroupRows own = call.group();
  const uint64_t first_row = own.begin + static_cast<uint64_t>(blockIdx.x) * kRows;
  if (first_row >= own.end) return;
  packed += static_cast<uint64_t>(blockIdx.z) * gridDim.y * kTokens * w.blocks * 32;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  __syncthreads();

  // Two threads decode a row, half a block each.
  const int own_row = thread / 2, own_half = thread % 2;
  const uint64_t row = min(first_row + own_row, own.end - 1);
  OutlierWalk<2> outliers(w, row, F == Format::q4o && first_row + own_row < own.end, call.error);

  const auto copy_x = [&](int buffer, uint64_t block) {
    for (int i = thread; i < kTokens * 4; i += kThreads) {
      const int token = i / 4, eight = i % 4 * 8;
      async_copy_16(&x_tile[buffer][token][eight], packed + (first_token + token) * w.blocks * 32 + block * 32 + eight);
    }
    async_commit();
  };
  const auto decode_w = [&](int buffer, uint64_t block, const typename D::Raw &raw) {
    const float scale = decoder.scale(raw);
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int i = 2 * own_half + j;
      float v[kPartColumns];
      decoder.part(raw, i, v);
      *reinterpret_cast<uint2 *>(&w_tile[buffer][own_row][4 * i]) = make_uint2(pack(v[0] * scale, v[1] * scale), pack(v[2] * scale, v[3] * scale));
      *reinterpret_cast<uint2 *>(&w_tile[buffer][own_row][16 + 4 * i]) = make_uint2(pack(v[4] * scale, v[5] * scale), pack(v[6] * scale, v[7] * scale));
    }
    if (F != Format::q4o) return;
    // The warp's 16 rows are there.
    __syncwarp();
    outliers.take(w, block, [&](int warps_row, int column, float value) {
      __nv_bfloat16 *element = &w_tile[buffer][16 * warp + warps_row][column];
      *element = __float2bfloat16_rn(__bfloat162float(*element) + value);
    });
  };

  float sum[kRowTiles][kTokenTiles][4] = {};
  copy_x(0, 0);
  decode_w(0, 0, decoder.load(row, 0, true));
  for (uint64_t block = 0; block < w.blocks; block++) {
    const int buffer = static_cast<int>(block & 1);
    async_wait<0>();
    // This buffer is full, and nobody reads the other one any more.
    __syncthreads();
    const bool more = block + 1 < w.blocks;
    if (more) copy_x(buffer ^ 1, block + 1);
    const typename D::Raw raw = decoder.load(row, block + 1, more);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int r = 0; r < kRowTiles; r++) load_matrix(a[r], &w_tile[buffer][warp_row + 16 * r + (lane & 15)][k + (lane >> 4) * 8]);
#pragma unroll
      for (int t = 0; t < kTokenTiles; t += 2) {
        uint32_t pair[4];
        load_matrix(pair, &x_tile[buffer][warp_token + 8 * t + (lane >> 4) * 8 + (lane & 7)][k + ((lane >> 3) & 1) * 8]);
        const uint32_t even[2] = {pair[0], pair[1]}, odd[2] = {pair[2], pair[3]};
#pragma unroll
        for (int r = 0; r < kRowTiles; r++) {
          mma_bf16(sum[r][t], a[r], even);
          mma_bf16(sum[r][t + 1], a[r], odd);
        }
      }
    }
    if (more) decode_w(buffer ^ 1, block + 1, raw);
  }

  const int group = lane / 4, token_pair = lane % 4 * 2;
#pragma unroll
  for (int r = 0; r < kRowTiles; r++)
#pragma unroll
    for (int upper = 0; upper < 2; upper++) {
      const uint64_t out_row = first_row + warp_row + 16 * r + 8 * upper + group;
      if (out_row >= own.end) continue;
      const float scale = row_scale_of(w, out_row), bias = call.bias ? call.bias[out_row] : 0.0f;
#pragma unroll
      for (int t = 0; t < kTokenTiles; t++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const int token = first_token + warp_token + 8 * t + token_pair + j;
          if (token < call.tokens) call.y[token * call.y_stride + out_row] = fmaf(sum[r][t][2 * upper + j], scale, bias);
        }
    }
}

int padded_tokens(const MatmulCall &call) {
  const int tile = call.tokens <= kFewTokens ? kFewTokens : kMostTokens;
  return (call.tokens + tile - 1) / tile * tile;
}

}  // namespace

uint64_t tensor_scratch_bytes(const MatmulCall &call) { return call.groups * static_cast<uint64_t>(padded_tokens(call)) * call.weight.blocks * 64; }

cudaError_t pack_activations(const MatmulCall &call, void *packed, cudaStream_t stream) {
  const unsigned pair_blocks = static_cast<unsigned>((call.weight.blocks * 16 + kThreads - 1) / kThreads);
  return launch(dim3(pair_blocks, static_cast<unsigned>(padded_tokens(call)), call.groups), kThreads, 0, stream)(pack_rows, call, static_cast<unsigned *>(packed));
}

cudaError_t matmul_tensor(const MatmulCall &call, const void *packed, cudaStream_t stream) {
  const unsigned tokens = static_cast<unsigned>(padded_tokens(call));
  const unsigned row_blocks = static_cast<unsigned>((call.most_rows() + kRows - 1) / kRows);
  const auto *x = static_cast<const __nv_bfloat16 *>(packed);
  return for_format(call.weight.format, [&](auto format) {
    constexpr Format F = decltype(format)::value;
    if (call.tokens <= kFewTokens) return launch(dim3(row_blocks, 1, call.groups), kThreads, 0, stream)(multiply_tensor<F, kFewTokens>, call, x);
    return launch(dim3(row_blocks, tokens / kMostTokens, call.groups), kThreads, 0, stream)(multiply_tensor<F, kMostTokens>, call, x);
  });
}

}  // namespace airk
