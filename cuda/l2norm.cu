#include "../cpu/arguments.h"
#include "context.h"
#include "warp.h"

namespace airk {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 1u << 16;

// A warp a row, since rows are heads. y may be x: a lane writes the elements that it alone reads again.
__global__ void __launch_bounds__(kThreads) l2norm(float *y, const float *x, uint64_t rows, uint64_t cols, float eps) {
  const uint64_t lane = threadIdx.x % 32, warps = kThreads / 32;
  for (uint64_t row = blockIdx.x * warps + threadIdx.x / 32; row < rows; row += gridDim.x * warps) {
    const float *from = x + row * cols;
    float squares = 0.0f;
    for (uint64_t i = lane; i < cols; i += 32) squares = fmaf(from[i], from[i], squares);
    const float factor = 1.0f / sqrtf(warp_sum(squares) + eps);
    for (uint64_t i = lane; i < cols; i += 32) y[row * cols + i] = from[i] * factor;
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_l2norm(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t rows, uint64_t cols, float eps) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_l2norm(stream, y, x, rows, cols, eps);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>((rows + 7) / 8, airk::kMostBlocks));
  return airk::enqueue_on(stream, "l2norm", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kThreads, 0, handle)(airk::l2norm, at<float>(y), at<const float>(x), rows, cols, eps);
  });
}
