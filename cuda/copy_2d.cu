#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__global__ void __launch_bounds__(kElementThreads)
    copy_2d(float *y, uint64_t y_stride, const float *x, uint64_t x_stride, uint64_t rows, uint64_t cols) {
  for (uint64_t i = first_element(); i < rows * cols; i += element_step()) {
    const uint64_t row = i / cols, col = i % cols;
    y[row * y_stride + col] = x[row * x_stride + col];
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_copy_2d(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t rows,
                                    uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0 || cols == 0) return AIRK_OK;
  const airk_status invalid = airk::check_copy_2d(stream, y, y_stride, x, x_stride, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "copy_2d", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(rows * cols), airk::kElementThreads, 0, handle)(airk::copy_2d, at<float>(y), y_stride,
                                                                                             at<const float>(x), x_stride, rows, cols);
  });
}
