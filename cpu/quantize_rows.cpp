// Reading the rows that a quantizer is given.
#include <cstring>

#include "floats.h"
#include "quantize.h"

namespace airk {

uint64_t load_row(const Source &source, uint64_t row, float *values) {
  const uint64_t cols = source.cols, first = row * cols;
  if (source.type == AIRK_F32) {
    std::memcpy(values, source.data + first * 4, cols * 4);
  } else {
    const uint8_t *from = source.data + first * 2;
    for (uint64_t c = 0; c < cols; c++) {
      uint16_t bits;
      std::memcpy(&bits, from + c * 2, 2);
      values[c] = source.type == AIRK_F16 ? from_f16(bits) : from_bf16(bits);
    }
  }
  uint32_t not_finite = 0;
  for (uint64_t c = 0; c < cols; c++) not_finite |= (bits_of(values[c]) & 0x7f800000u) == 0x7f800000u;
  if (!not_finite) return cols;
  uint64_t c = 0;
  while ((bits_of(values[c]) & 0x7f800000u) != 0x7f800000u) c++;
  return c;
}

airk_status fail_not_finite(airk_context *context, const char *op, uint64_t row, uint64_t col) {
  return fail(context, AIRK_NOT_FINITE, "Cannot %s: the weight in row %llu, column %llu is NaN, infinite, or beyond the format's range", op,
              static_cast<unsigned long long>(row), static_cast<unsigned long long>(col));
}

}  // namespace airk
