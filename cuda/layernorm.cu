#include "../cpu/arguments.h"
#include "context.h"
#include "warp.h"

namespace airk {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 1u << 16;

// One block a row at a time. y may be x: a thread writes the elements that it alone reads again.
__global__ void __launch_bounds__(kThreads)
    layernorm(float *y, const float *x, const float *weight, const float *bias, uint64_t weight_rows, uint64_t rows, uint64_t cols,
              float eps) {
  __shared__ float parts[2][32];
  for (uint64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float *from = x + row * cols;
    float *to = y + row * cols;
    const uint64_t own = row % weight_rows * cols;
    float sum = 0.0f;
    for (uint64_t i = threadIdx.x; i < cols; i += kThreads) sum += from[i];
    const float mean = block_sum(sum, parts[0]) / static_cast<float>(cols);
    // Two passes: mean(x^2) - mean(x)^2 would cancel.
    float squares = 0.0f;
    for (uint64_t i = threadIdx.x; i < cols; i += kThreads) squares = fmaf(from[i] - mean, from[i] - mean, squares);
    const float factor = 1.0f / sqrtf(block_sum(squares, parts[1]) / static_cast<float>(cols) + eps);
    for (uint64_t i = threadIdx.x; i < cols; i += kThreads) {
      float value = (from[i] - mean) * factor;
      if (weight) value *= weight[own + i];
      if (bias) value += bias[own + i];
      to[i] = value;
    }
    // `parts` is used again.
    __syncthreads();
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_layernorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias,
                                      uint64_t weight_rows, uint64_t rows, uint64_t cols, float eps) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_layernorm(stream, y, x, weight, bias, weight_rows, rows, cols, eps);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(rows, airk::kMostBlocks));
  return airk::enqueue_on(stream, "layernorm", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kThreads, 0, handle)(airk::layernorm, at<float>(y), at<const float>(x), at<const float>(weight),
                                                           at<const float>(bias), weight_rows, rows, cols, eps);
  });
}
