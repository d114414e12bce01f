#include "../cpu/arguments.h"
#include "../cpu/order.h"
#include "context.h"
#include "warp.h"

namespace airk {
namespace {

constexpr int kThreads = 1024;
constexpr unsigned kMostBlocks = 1u << 16;

__device__ __forceinline__ uint64_t warp_largest(uint64_t key) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(key), lanes);
    key = other > key ? other : key;
  }
  return key;
}

// One block a row at a time.
__global__ void __launch_bounds__(kThreads) argmax(int *index, const float *x, uint64_t rows, uint64_t cols) {
  __shared__ uint64_t warps[32];
  const int thread = static_cast<int>(threadIdx.x);
  for (uint64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float *from = x + row * cols;
    // Less than every element's: indices stay below 2^31.
    uint64_t key = 0;
    for (uint64_t i = threadIdx.x; i < cols; i += kThreads) {
      const uint64_t own = order_key(from[i], static_cast<uint32_t>(i));
      key = own > key ? own : key;
    }
    key = warp_largest(key);
    if (thread % 32 == 0) warps[thread / 32] = key;
    __syncthreads();
    if (thread < 32) {
      key = warp_largest(warps[thread]);
      if (thread == 0) index[row] = static_cast<int>(order_index(key));
    }
    // `warps` is used again.
    __syncthreads();
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_argmax(airk_stream *stream, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_argmax(stream, index, x, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(rows, airk::kMostBlocks));
  return airk::enqueue_on(stream, "argmax", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kThreads, 0, handle)(airk::argmax, at<int>(index), at<const float>(x), rows, cols);
  });
}
