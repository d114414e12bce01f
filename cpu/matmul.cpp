// airk_matmul: validation, and the choice between dot products, panels and integers.
#include "matmul.h"

#include <algorithm>
#include <array>

#include "arguments.h"

namespace airk {

void decode_column_scale(const Weight &weight, float *values) {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> made;
    for (int u = 0; u < 256; u++) made[static_cast<std::size_t>(u)] = column_scale_value(static_cast<uint8_t>(u));
    return made;
  }();
  for (uint64_t c = 0; c < weight.cols; c++) values[c] = table[weight.q4o.column_scale[c]];
}

void prepare_activations(const Weight &weight, const float *column_scale, const float *x, uint64_t begin, uint64_t end, float *prepared) {
  const uint64_t filled = std::min(end, weight.cols), count = filled > begin ? filled - begin : 0;
  if (column_scale == nullptr) {
    std::copy_n(x + begin, count, prepared);
  } else {
    for (uint64_t i = 0; i < count; i++) prepared[i] = x[begin + i] * column_scale[begin + i];
  }
  std::fill(prepared + count, prepared + (end - begin), 0.0f);
}

}  // namespace airk

using namespace airk;

airk_status airk_matmul(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens, int32_t format,
                        airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr bias,
                        int32_t continues, int32_t precision) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = context_of(stream);
  MatmulArguments arguments;
  const airk_status status = view_weight(context, "matmul", format, weight, weight_bytes, rows, cols, outliers, &arguments.weight);
  if (status != AIRK_OK) return status;
  const airk_status invalid = check_matmul(context, y, y_stride, x, x_stride, tokens, rows, cols, bias, continues, precision);
  if (invalid != AIRK_OK || tokens == 0) return invalid;
  arguments.context = context;
  arguments.x = at<const float>(x);
  arguments.y = at<float>(y);
  arguments.bias = bias == 0 ? nullptr : at<const float>(bias);
  arguments.x_stride = x_stride;
  arguments.y_stride = y_stride;
  arguments.tokens = tokens;
  arguments.continues = continues == 1;
  arguments.fast = precision == 1;
  return enqueue(stream, [arguments]() -> airk_status {
    if (arguments.tokens <= max_dot_tokens) return multiply_by_rows(arguments);
    const Isa isa = isa_of(arguments.context);
    const IntegerTiles *tiles = arguments.fast ? integer_tiles_of(isa, arguments.weight.format, arguments.tokens <= 16) : nullptr;
    return tiles != nullptr ? multiply_by_integers(arguments, *tiles) : multiply_by_panels(arguments);
  });
}
