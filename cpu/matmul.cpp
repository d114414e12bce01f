// airk_matmul: validation, and the choice between dot products and panels.
#include "matmul.h"

#include <cstring>

namespace airk {

airk_status fail_outliers(airk_context *context, const char *op) {
  return fail(context, AIRK_INVALID, "Cannot %s: the outlier sections of the q4o extent are corrupt", op);
}

void decode_column_scale(const Weight &weight, float *values) {
  float table[256];
  for (int u = 0; u < 256; u++) table[u] = column_scale_value(static_cast<uint8_t>(u));
  for (uint64_t c = 0; c < weight.cols; c++) values[c] = table[weight.q4o.column_scale[c]];
}

void prepare_activations(const Weight &weight, const float *column_scale, const float *x, float *prepared) {
  if (column_scale == nullptr) {
    std::memcpy(prepared, x, weight.cols * sizeof(float));
  } else {
    for (uint64_t c = 0; c < weight.cols; c++) prepared[c] = x[c] * column_scale[c];
  }
  for (uint64_t c = weight.cols; c < weight.blocks * block_cols; c++) prepared[c] = 0.0f;
}

}  // namespace airk

using namespace airk;

airk_status airk_matmul(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens, int32_t format,
                        airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr bias,
                        int32_t precision) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = context_of(stream);
  MatmulArguments arguments;
  const airk_status status = view_weight(context, "matmul", format, weight, weight_bytes, rows, cols, outliers, &arguments.weight);
  if (status != AIRK_OK) return status;
  if (precision != 0 && precision != 1) return fail(context, AIRK_INVALID, "Cannot matmul: precision %d, required 0 or 1", precision);
  if (tokens == 0) return AIRK_OK;
  if (tokens > 1 && (x_stride < cols || y_stride < rows)) {
    return fail(context, AIRK_INVALID, "Cannot matmul: strides %llu and %llu of x and y, required %llu and %llu",
                static_cast<unsigned long long>(x_stride), static_cast<unsigned long long>(y_stride),
                static_cast<unsigned long long>(cols), static_cast<unsigned long long>(rows));
  }
  uint64_t x_elements, y_elements, bytes;
  if (multiply_overflows(tokens - 1, x_stride, &x_elements) || multiply_overflows(tokens - 1, y_stride, &y_elements) ||
      multiply_overflows(x_elements + cols, 4, &bytes) || multiply_overflows(y_elements + rows, 4, &bytes)) {
    return fail(context, AIRK_INVALID, "Cannot matmul: the size of x or y overflows");
  }
  if (x == 0 || y == 0 || x % 4 != 0 || y % 4 != 0 || bias % 4 != 0) {
    return fail(context, AIRK_INVALID, "Cannot matmul: x, y and bias must be multiples of 4, x and y not null");
  }
  if (x < y + (y_elements + rows) * 4 && y < x + (x_elements + cols) * 4) return fail(context, AIRK_INVALID, "Cannot matmul: y overlaps x");
  arguments.context = context;
  arguments.x = at<const float>(x);
  arguments.y = at<float>(y);
  arguments.bias = bias == 0 ? nullptr : at<const float>(bias);
  arguments.x_stride = x_stride;
  arguments.y_stride = y_stride;
  arguments.tokens = tokens;
  arguments.fast = precision == 1;
  return enqueue(stream, [arguments]() -> airk_status {
    return arguments.tokens <= max_dot_tokens ? multiply_by_rows(arguments) : multiply_by_panels(arguments);
  });
}
