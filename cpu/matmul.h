// The parts of airk_matmul.
#pragma once

#include "kernels.h"

namespace airk {

struct MatmulArguments {
  airk_context *context;
  Weight weight;
  const float *x;     // [tokens][x_stride]
  float *y;           // [tokens][y_stride]
  const float *bias;  // [rows] or nullptr
  uint64_t x_stride, y_stride, tokens;
  bool continues;  // the operation before prepared the same x for the same matrix
  bool fast;
};

// Writes columns [begin, end) of a row of activations, end <= blocks * 32: times the column scale where the format has one, zero beyond cols.
void prepare_activations(const Weight &weight, const float *column_scale, const float *x, uint64_t begin, uint64_t end, float *prepared);

// Writes the values of q4o's column scale [cols].
void decode_column_scale(const Weight &weight, float *values);

// Few tokens: dot products straight from the packed weights.
airk_status multiply_by_rows(const MatmulArguments &arguments);
// Many tokens: panels of decoded weights, used for all tokens.
airk_status multiply_by_panels(const MatmulArguments &arguments);
// The same on integers, where the instruction set has tiles for the format.
airk_status multiply_by_integers(const MatmulArguments &arguments, const IntegerTiles &tiles);

}  // namespace airk
