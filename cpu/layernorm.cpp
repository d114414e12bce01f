#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_layernorm(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias,
                                      uint64_t weight_rows, uint64_t rows, uint64_t cols, float eps) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_layernorm(stream, y, x, weight, bias, weight_rows, rows, cols, eps);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const auto kernel = airk::row_kernels(context).layernorm;
    const int64_t width = static_cast<int64_t>(cols);
    airk::parallel_for(context, static_cast<int64_t>(rows), airk::grain_of(width), [=](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t own = row % static_cast<int64_t>(weight_rows) * width;
        const float *row_weight = weight ? at<const float>(weight) + own : nullptr, *row_bias = bias ? at<const float>(bias) + own : nullptr;
        kernel(at<float>(y) + row * width, at<const float>(x) + row * width, row_weight, row_bias, width, eps);
      }
    });
    return AIRK_OK;
  });
}
