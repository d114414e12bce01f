#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

constexpr unsigned kMostBlocks = 1u << 16;

// A block owns the row of y that x's row i goes to where i is the first with that id, and adds all others of the id after it, in order.
__global__ void __launch_bounds__(kElementThreads) scatter_add(float *y, const float *x, const int *ids, const float *weights,
                                                               uint64_t count, uint64_t rows, uint64_t cols, DeviceError *error) {
  // Every block looks at all ids, so that a wrong one leaves y as it was.
  int wrong = 0;
  for (uint64_t i = threadIdx.x; i < count; i += kElementThreads) {
    if (ids[i] >= 0 && static_cast<uint64_t>(ids[i]) < rows) continue;
    report(error, Complaint::scatter_id, static_cast<long long>(i), ids[i], static_cast<long long>(rows));
    wrong = 1;
  }
  if (__syncthreads_or(wrong)) return;
  for (uint64_t first = blockIdx.x; first < count; first += gridDim.x) {
    const int id = ids[first];
    int taken = 0;
    for (uint64_t i = threadIdx.x; i < first; i += kElementThreads) taken |= ids[i] == id;
    if (__syncthreads_or(taken)) continue;
    float *to = y + static_cast<uint64_t>(id) * cols;
    for (uint64_t i = first; i < count; i++) {
      if (ids[i] != id) continue;
      const float factor = weights ? weights[i] : 1.0f;
      for (uint64_t col = threadIdx.x; col < cols; col += kElementThreads) to[col] = fmaf(factor, x[i * cols + col], to[col]);
    }
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_scatter_add(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, airk_ptr weights, uint64_t count,
                                        uint64_t rows, uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_scatter_add(stream, y, x, ids, weights, count, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(count, airk::kMostBlocks));
  airk::DeviceError *error = stream->context->device_error;
  return airk::enqueue_on(stream, "scatter_add", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kElementThreads, 0, handle)(airk::scatter_add, at<float>(y), at<const float>(x), at<const int>(ids),
                                                                  at<const float>(weights), count, rows, cols, error);
  });
}
