// The parts of airk_matmul.
#pragma once

#include "weights.h"

namespace airk {

constexpr int kMostRowTokens = 8;  // that matmul_rows takes
// What the grids can count.
constexpr uint64_t kMostGridRows = 1ull << 31, kMostGridTokens = 1ull << 15;

// Rows of one group, which multiply the same part of x.
struct GroupRows {
  uint64_t begin, end;
  const float *x;
};

struct MatmulCall {
  Weight weight;
  const float *x;     // [tokens][x_stride]
  float *y;           // [tokens][y_stride]
  const float *bias;  // [rows] or nullptr
  uint64_t x_stride, y_stride;
  int tokens;
  DeviceError *error;
  // The grids' z counts groups from first_group on: airk_matmul_grouped. A plain product is one group.
  uint64_t first_row, group_rows, x_group_stride, first_group;
  unsigned groups;

  __device__ GroupRows group() const {
    const uint64_t group = first_group + blockIdx.z, start = group * group_rows;
    return {start > first_row ? start - first_row : 0, min(start + group_rows - first_row, weight.rows), x + group * x_group_stride};
  }
  // Rows of the largest group.
  uint64_t most_rows() const { return group_rows < weight.rows ? group_rows : weight.rows; }
};

// 1 to 8 tokens: dot products straight from the packed weights, in float32.
cudaError_t matmul_rows(const MatmulCall &call, cudaStream_t stream);
// The same of weights that takes_blocks() is true for.
cudaError_t matmul_rows_by_blocks(const MatmulCall &call, cudaStream_t stream);
// More tokens: tiles in float32.
cudaError_t matmul_tiles(const MatmulCall &call, cudaStream_t stream);
// More tokens: tiles of bfloat16 on tensor cores, summed in float32. From sm_80 on. packed: tensor_scratch_bytes, filled by pack_activations.
cudaError_t pack_activations(const MatmulCall &call, void *packed, cudaStream_t stream);
cudaError_t matmul_tensor(const MatmulCall &call, const void *packed, cudaStream_t stream);
uint64_t tensor_scratch_bytes(const MatmulCall &call);

}  // namespace airk
