#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_log_decay(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr a_log, airk_ptr bias, uint64_t rows,
                                      uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_log_decay(stream, y, x, a_log, bias, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const auto kernel = airk::row_kernels(context).log_decay;
    const int64_t width = static_cast<int64_t>(cols);
    // An element takes two exponentials and a logarithm, some dozen times what a pass over it does.
    airk::parallel_for(context, static_cast<int64_t>(rows), airk::grain_of(16 * width), [=](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        kernel(at<float>(y) + row * width, at<const float>(x) + row * width, at<const float>(a_log), at<const float>(bias), width);
      }
    });
    return AIRK_OK;
  });
}
