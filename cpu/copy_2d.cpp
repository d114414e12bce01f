#include <cstring>

#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_copy_2d(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t rows,
                                    uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0 || cols == 0) return AIRK_OK;
  const airk_status invalid = airk::check_copy_2d(stream, y, y_stride, x, x_stride, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const int64_t grain = airk::grain_of(static_cast<int64_t>(cols));
    airk::parallel_for(context, static_cast<int64_t>(rows), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t row = static_cast<uint64_t>(begin); row < static_cast<uint64_t>(end); row++) {
        std::memcpy(at<float>(y) + row * y_stride, at<const float>(x) + row * x_stride, cols * sizeof(float));
      }
    });
    return AIRK_OK;
  });
}
