#include "../cpu/arguments.h"
#include "context.h"
#include "warp.h"

namespace airk {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 1u << 16;

// One block a row at a time. y may be x: a thread writes the elements that it alone reads again.
__global__ void __launch_bounds__(kThreads) rmsnorm(float *y, const float *x, const float *weight, uint64_t rows, uint64_t cols, float eps) {
  __shared__ float parts[32];
  for (uint64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float *from = x + row * cols;
    float *to = y + row * cols;
    float squares = 0.0f;
    for (uint64_t i = threadIdx.x; i < cols; i += kThreads) squares = fmaf(from[i], from[i], squares);
    const float mean = block_sum(squares, parts) / static_cast<float>(cols);
    const float factor = 1.0f / sqrtf(mean + eps);
    for (uint64_t i = threadIdx.x; i < cols; i += kThreads) to[i] = from[i] * factor * (weight ? weight[i] : 1.0f);
    // `parts` is used again.
    __syncthreads();
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_rmsnorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, uint64_t rows, uint64_t cols,
                                    float eps) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_rmsnorm(stream, y, x, weight, rows, cols, eps);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(rows, airk::kMostBlocks));
  return airk::enqueue_on(stream, "rmsnorm", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kThreads, 0, handle)(airk::rmsnorm, at<float>(y), at<const float>(x), at<const float>(weight), rows,
                                                           cols, eps);
  });
}
