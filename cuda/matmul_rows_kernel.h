// The kernel for products of 1 to 8 tokens: each weight is read once, decoded in registers and multiplied with every token.
//
// A warp takes kRows rows and, at a time, 1024 columns: a lane decodes one block of 32 columns of each row. Where there are few
// tokens several warps share the rows and split the columns, so that enough reads are under way. Activations, times the column scale,
// lie in shared memory with a block of 32 columns 36 floats apart: eight lanes reading 16 bytes each then meet no bank twice.
#pragma once

#include <algorithm>
#include <type_traits>

#include "block_decoders.h"
#include "block_decoders_gguf.h"
#include "matmul.h"
#include "warp.h"

namespace airk {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kWarpColumns = 1024, kPaddedBlock = 36, kPaddedColumns = 32 * kPaddedBlock;

template <class D> constexpr bool kHasOutliers = std::is_same_v<D, Decoder<Format::q4o>>;

// How a decoder's products are cut. kMostRows: of a warp; kPartsAtOnce: of a block, decoded side by side; kTwoBlocks: whether a multiprocessor
// must have room for two blocks where there is one token, so that enough reads are under way.
template <class D> struct RowShape {
  static constexpr int kMostRows = 4, kPartsAtOnce = 4;
  static constexpr bool kTwoBlocks = true;
};
template <> struct RowShape<Decoder<Format::q4o>> {
  static constexpr int kMostRows = 8, kPartsAtOnce = 4;
  static constexpr bool kTwoBlocks = true;
};
// Eight rows of q8 take a few more registers than two blocks leave on sm_100.
template <> struct RowShape<Decoder<Format::q8>> {
  static constexpr int kMostRows = 4, kPartsAtOnce = 4;
  static constexpr bool kTwoBlocks = true;
};
// Its path for irregular rows leaves registers for one block.
template <> struct RowShape<Decoder<Format::nf4>> {
  static constexpr int kMostRows = 8, kPartsAtOnce = 4;
  static constexpr bool kTwoBlocks = false;
};
// The code for all families of packed formats stands in every copy.
template <> struct RowShape<Decoder<Format::packed>> {
  static constexpr int kMostRows = 2, kPartsAtOnce = 1;
  static constexpr bool kTwoBlocks = false;
};
// A block is 20 to 32 registers.
template <> struct RowShape<BlockDecoder<Family::q5_k>> : RowShape<void> {
  static constexpr int kMostRows = 2;
};
template <> struct RowShape<BlockDecoder<Family::q6_k>> : RowShape<void> {
  static constexpr int kMostRows = 2;
};
template <> struct RowShape<BlockDecoder<Family::q3_k>> : RowShape<void> {
  static constexpr int kMostRows = 2;
};
template <> struct RowShape<DenseBlockDecoder<Format::f32>> : RowShape<void> {
  static constexpr int kMostRows = 2;
};

template <class D, int kTokens> constexpr int kResident = RowShape<D>::kTwoBlocks && kTokens == 1 ? 2 : 1;
template <class D> constexpr int kPartsAtOnce = RowShape<D>::kPartsAtOnce;

// kTokens: of one call at most. kSplit: warps that share rows. kRows: of a warp.
template <class D, int kTokens, int kSplit, int kRows>
__global__ void __launch_bounds__(kThreads, (kResident<D, kTokens>)) multiply_rows(const MatmulCall call) {
  constexpr int kGroups = kWarps / kSplit, kBlockRows = kGroups * kRows, kTile = kSplit * kWarpColumns;
  __shared__ __align__(16) float x_tile[kTokens][kSplit][kPaddedColumns];
  __shared__ float table[D::kUsesTable ? kTableFloats : 1];
  __shared__ float sums[kTokens][kBlockRows][kSplit];

  const Weight &w = call.weight;
  const D decoder(w, table);
  const int thread = static_cast<int>(threadIdx.x), lane = thread & 31, warp = thread / 32, split = warp % kSplit, group = warp / kSplit;
  const GroupRows own = call.group();
  const uint64_t first_row = own.begin + static_cast<uint64_t>(blockIdx.x) * kBlockRows;
  if (first_row >= own.end) return;

  float sum[kTokens][kRows];
#pragma unroll
  for (int t = 0; t < kTokens; t++)
#pragma unroll
    for (int r = 0; r < kRows; r++) sum[t][r] = 0.0f;

  for (uint64_t first_col = 0; first_col < w.cols; first_col += kTile) {
    // Weights are asked for before the activations: they take longer.
    const uint64_t block = first_col / 32 + split * 32 + lane;
    typename D::Raw raw[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const uint64_t row = min(first_row + group * kRows + r, own.end - 1);
      raw[r] = decoder.load(row, block, block < w.blocks);
    }
    __syncthreads();
    for (int i = thread; i < kTile; i += kThreads) {
      const uint64_t col = first_col + i;
      const bool exists = col < w.cols;
      const float scale = exists ? column_scale_of(w, col) : 0.0f;
      const int at = i % kWarpColumns / 32 * kPaddedBlock + i % 32;
#pragma unroll
      for (int t = 0; t < kTokens; t++) {
        x_tile[t][i / kWarpColumns][at] = exists && t < call.tokens ? own.x[t * call.x_stride + col] * scale : 0.0f;
      }
    }
    __syncthreads();
#pragma unroll (kPartsAtOnce<D>)
    for (int i = 0; i < 4; i++) {
      float v[kRows][kPartColumns];
#pragma unroll
      for (int r = 0; r < kRows; r++) decoder.part(raw[r], i, v[r]);
#pragma unroll
      for (int t = 0; t < kTokens; t++) {
        const float *x = &x_tile[t][split][lane * kPaddedBlock + 4 * i];
        const float4 a = *reinterpret_cast<const float4 *>(x), b = *reinterpret_cast<const float4 *>(x + 16);
#pragma unroll
        for (int r = 0; r < kRows; r++) {
          float dot = v[r][0] * a.x;
          dot = fmaf(v[r][1], a.y, dot);
          dot = fmaf(v[r][2], a.z, dot);
          dot = fmaf(v[r][3], a.w, dot);
          dot = fmaf(v[r][4], b.x, dot);
          dot = fmaf(v[r][5], b.y, dot);
          dot = fmaf(v[r][6], b.z, dot);
          dot = fmaf(v[r][7], b.w, dot);
          sum[t][r] = fmaf(dot, decoder.scale(raw[r]), sum[t][r]);
        }
      }
    }
  }

#pragma unroll
  for (int t = 0; t < kTokens; t++)
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const float total = warp_sum(sum[t][r]);
      if (lane == 0) sums[t][group * kRows + r][split] = total;
    }
  __syncthreads();

  // A warp finishes a row at a time: its outliers spread evenly over the lanes, whatever their number.
  for (int r = warp; r < kBlockRows; r += kWarps) {
    const uint64_t row = first_row + r;
    if (row >= own.end) break;
    float sparse[kTokens];
#pragma unroll
    for (int t = 0; t < kTokens; t++) sparse[t] = 0.0f;
    if (kHasOutliers<D>) {
      uint64_t begin, end;
      device_outliers(w, row, call.error, kMatmul, &begin, &end);
      for (uint64_t i = begin + lane; i < end; i += 32) {
        const uint64_t col = w.q4o.outlier_col[i];
        if (col >= w.cols) {
          report(call.error, Complaint::outliers, static_cast<long long>(row), kMatmul, 0);
          continue;
        }
        const float value = outlier_unit * device_f16(w.q4o.outlier[i]) * column_scale_of(w, col);
#pragma unroll
        for (int t = 0; t < kTokens; t++) {
          if (t < call.tokens) sparse[t] = fmaf(value, own.x[t * call.x_stride + col], sparse[t]);
        }
      }
    }
    const float scale = row_scale_of(w, row), bias = call.bias ? call.bias[row] : 0.0f;
#pragma unroll
    for (int t = 0; t < kTokens; t++) {
      float total = kHasOutliers<D> ? warp_sum(sparse[t]) : 0.0f;
#pragma unroll
      for (int s = 0; s < kSplit; s++) total += sums[t][r][s];
      if (lane == 0 && t < call.tokens) call.y[t * call.y_stride + row] = fmaf(total, scale, bias);
    }
  }
}

template <class D, int kTokens, int kSplit, int kWanted> cudaError_t start_rows(const MatmulCall &call, cudaStream_t stream) {
  constexpr int kRows = std::min(kWanted, RowShape<D>::kMostRows);
  constexpr uint64_t kBlockRows = kWarps / kSplit * kRows;
  const unsigned blocks = static_cast<unsigned>((call.most_rows() + kBlockRows - 1) / kBlockRows);
  return launch(dim3(blocks, 1, call.groups), kThreads, 0, stream)(multiply_rows<D, kTokens, kSplit, kRows>, call);
}

template <class D> cudaError_t multiply_with(const MatmulCall &call, cudaStream_t stream) {
  if (call.tokens == 1) return start_rows<D, 1, 4, 8>(call, stream);
  if (call.tokens <= 4) return start_rows<D, 4, 2, 4>(call, stream);
  return start_rows<D, kMostRowTokens, 1, 4>(call, stream);
}

}  // namespace airk
