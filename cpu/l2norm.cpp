#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_l2norm(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t rows, uint64_t cols, float eps) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_l2norm(stream, y, x, rows, cols, eps);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const auto kernel = airk::row_kernels(context).l2norm;
    const int64_t width = static_cast<int64_t>(cols);
    airk::parallel_for(context, static_cast<int64_t>(rows), airk::grain_of(width), [=](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) kernel(at<float>(y) + row * width, at<const float>(x) + row * width, width, eps);
    });
    return AIRK_OK;
  });
}
