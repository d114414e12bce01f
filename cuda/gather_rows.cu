#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

constexpr unsigned kMostBlocks = 1u << 16;

__global__ void __launch_bounds__(kElementThreads)
    gather_rows(float *y, const float *x, const int *ids, uint64_t count, uint64_t rows, uint64_t cols, DeviceError *error) {
  for (uint64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const int id = ids[i];
    if (id < 0 || static_cast<uint64_t>(id) >= rows) {
      if (threadIdx.x == 0) report(error, Complaint::gather_id, static_cast<long long>(i), id, static_cast<long long>(rows));
      continue;
    }
    const float *from = x + static_cast<uint64_t>(id) * cols;
    for (uint64_t col = threadIdx.x; col < cols; col += kElementThreads) y[i * cols + col] = from[col];
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_gather_rows(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, uint64_t count, uint64_t rows,
                                        uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_gather_rows(stream, y, x, ids, count, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(count, airk::kMostBlocks));
  airk::DeviceError *error = stream->context->device_error;
  return airk::enqueue_on(stream, "gather_rows", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kElementThreads, 0, handle)(airk::gather_rows, at<float>(y), at<const float>(x), at<const int>(ids),
                                                                  count, rows, cols, error);
  });
}
