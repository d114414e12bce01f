// Products of many tokens in float32: tiles of 64 rows x 64 tokens in shared memory, 4 x 4 sums a thread.
#include "matmul.h"
#include "outlier_walk.h"

namespace airk {

namespace {

constexpr int kThreads = 256, kTile = 64, kPadded = kTile + 4, kDepth = 32;

template <Format F> __global__ void __launch_bounds__(kThreads, 1) multiply_tiles(const MatmulCall call) {
  using D = Decoder<F>;
  __shared__ __align__(16) float w_tile[kDepth][kPadded], x_tile[kDepth][kPadded];
  __shared__ float table[D::kUsesTable ? kTableFloats : 1];
  const Weight &w = call.weight;
  const D decoder(w, table);
  const int thread = static_cast<int>(threadIdx.x);
  const GroupRows own = call.group();
  const uint64_t first_row = own.begin + static_cast<uint64_t>(blockIdx.x) * kTile;
  if (first_row >= own.end) return;
  const int first_token = static_cast<int>(blockIdx.y) * kTile;
  __syncthreads();

  // Four threads decode a row, a quarter of a block each.
  const int own_row = thread / 4, part = thread % 4;
  const uint64_t row = min(first_row + own_row, own.end - 1);
  OutlierWalk<4> outliers(w, row, F == Format::q4o && first_row + own_row < own.end, call.error);

  float sum[4][4] = {};
  const int row4 = thread % 16 * 4, token4 = thread / 16 * 4;
  for (uint64_t block = 0; block < w.blocks; block++) {
    {
      const typename D::Raw raw = decoder.load(row, block, true);
      float v[kPartColumns];
      decoder.part(raw, part, v);
#pragma unroll
      for (int j = 0; j < kPartColumns; j++) w_tile[part_column(part, j)][own_row] = v[j] * decoder.scale(raw);
    }
    if (F == Format::q4o) {
      // The warp's eight rows are there.
      __syncwarp();
      outliers.take(w, block, [&](int warps_row, int column, float value) { w_tile[column][thread / 32 * 8 + warps_row] += value; });
    }
    for (int i = thread; i < kTile * kDepth; i += kThreads) {
      const int k = i % kDepth, token = i / kDepth;
      const uint64_t col = block * 32 + k;
      const bool exists = col < w.cols && first_token + token < call.tokens;
      x_tile[k][token] = exists ? own.x[(first_token + token) * call.x_stride + col] * column_scale_of(w, col) : 0.0f;
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kDepth; k++) {
      const float4 a = *reinterpret_cast<const float4 *>(&w_tile[k][row4]), b = *reinterpret_cast<const float4 *>(&x_tile[k][token4]);
      const float rows[4] = {a.x, a.y, a.z, a.w}, tokens[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int r = 0; r < 4; r++) sum[t][r] = fmaf(rows[r], tokens[t], sum[t][r]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const uint64_t row = first_row + row4 + r;
    if (row >= own.end) break;
    const float scale = row_scale_of(w, row), bias = call.bias ? call.bias[row] : 0.0f;
#pragma unroll
    for (int t = 0; t < 4; t++) {
      const int token = first_token + token4 + t;
      if (token < call.tokens) call.y[token * call.y_stride + row] = fmaf(sum[t][r], scale, bias);
    }
  }
}

}  // namespace

cudaError_t matmul_tiles(const MatmulCall &call, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((call.most_rows() + kTile - 1) / kTile), static_cast<unsigned>((call.tokens + kTile - 1) / kTile), call.groups);
  return for_format(call.weight.format, [&](auto format) { return launch(grid, kThreads, 0, stream)(multiply_tiles<decltype(format)::value>, call); });
}

}  // namespace airk
