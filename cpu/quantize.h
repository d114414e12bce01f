// The parts of the quantizers.
#pragma once

#include "formats.h"
#include "search_kernels.h"

namespace airk {

// Rows of a tensor being quantized.
struct Source {
  const uint8_t *data;
  int32_t type;
  uint64_t rows, cols;
};

// Writes a row as float32; returns its first column that is NaN or infinite, or cols.
uint64_t load_row(const Source &source, uint64_t row, float *values);

struct QuantizeArguments {
  airk_context *context;
  Source source;
  const uint8_t *parameters;
  uint8_t *extent;
  uint64_t extent_capacity;
  uint64_t extent_bytes, outliers;  // written
  double squared_weights, squared_errors;  // written
};

airk_status quantize_simple(Format format, QuantizeArguments *arguments);
airk_status quantize_q4o(QuantizeArguments *arguments);
airk_status train_q4o(airk_context *context, const Source &source, uint8_t *parameters);

// Outliers that a group of rows may have at most.
uint64_t outlier_cap(uint64_t group_rows, uint64_t cols);

// Reports the position of a weight that is NaN or infinite.
airk_status fail_not_finite(airk_context *context, const char *op, uint64_t row, uint64_t col);

}  // namespace airk
