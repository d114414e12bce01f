// What the q4o quantizer asks of an instruction set.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace airk {

// A code table made ready for searching.
struct CodeBook {
  float value[16];       // ascending
  float threshold[15];   // midpoints of neighbours
  float largest;         // largest magnitude of value
  uint8_t index_of[256];  // index of the value v at v + 128
  int multipliers;
  float multiplier[24];  // of largest magnitude / largest, tried with both signs
};

// Returns false where the table does not ascend strictly, which would leave codes that nothing can choose.
bool make_code_book(const int8_t *table, CodeBook *book);

// v: weights over column scale, q: importance of their squared errors; both [blocks * 32].
struct SearchKernels {
  // Writes the scale of each block with the smallest error that was found, and that error.
  void (*search)(const CodeBook &book, const float *v, const float *q, int64_t blocks, float *scale, float *error);
  // Writes one block's errors under each of count scales.
  void (*errors)(const CodeBook &book, const float *v, const float *q, const float *scales, int count, float *errors);
  // Writes the nearest value of the code to each element over its block's scale.
  void (*assign)(const CodeBook &book, const float *v, const float *scales, int64_t blocks, float *values);
};

const SearchKernels *search_kernels_of(Isa isa);

}  // namespace airk
