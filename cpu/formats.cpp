#include "formats.h"

#include <cmath>
#include <cstring>

namespace airk {

const float nf4_values[16] = AIRK_NF4_VALUES;

namespace {

const char *const names[format_count] = {"f32", "f16", "bf16", "q8", "nf4", "q4o"};

// Appends sections, each on a multiple of 64 bytes, and remembers whether a size overflowed.
class Sections {
 public:
  uint64_t add(uint64_t count, uint64_t element_bytes) {
    uint64_t bytes, start;
    overflow_ |= multiply_overflows(count, element_bytes, &bytes);
    overflow_ |= __builtin_add_overflow(end_, uint64_t{63}, &start);
    start &= ~uint64_t{63};
    overflow_ |= __builtin_add_overflow(start, bytes, &end_);
    return start;
  }
  uint64_t product(uint64_t a, uint64_t b) {
    uint64_t result;
    overflow_ |= multiply_overflows(a, b, &result);
    return result;
  }
  bool overflow() const { return overflow_; }
  uint64_t end() const { return end_; }

 private:
  uint64_t end_ = 0;
  bool overflow_ = false;
};

uint64_t ceil_divide(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

}  // namespace

bool format_of(int32_t id, Format *format) {
  if (id < 0 || id >= format_count) return false;
  *format = static_cast<Format>(id);
  return true;
}

const char *format_name(Format format) { return names[static_cast<int>(format)]; }

bool layout_of(Format format, uint64_t rows, uint64_t cols, uint64_t outliers, Layout *layout) {
  *layout = Layout{};
  if (rows == 0 || cols == 0 || (outliers != 0 && format != Format::q4o)) return false;
  Sections sections;
  const uint64_t elements = sections.product(rows, cols), blocks = ceil_divide(cols, block_cols);
  const uint64_t row_blocks = sections.product(rows, blocks);
  switch (format) {
    case Format::f32:
      layout->values = sections.add(elements, 4);
      break;
    case Format::f16:
    case Format::bf16:
      layout->values = sections.add(elements, 2);
      break;
    case Format::q8:
      layout->scale = sections.add(row_blocks, 2);
      layout->code = sections.add(row_blocks, 32);
      break;
    case Format::nf4:
      layout->scale = sections.add(ceil_divide(elements, nf4_block), 4);
      layout->code = sections.add(ceil_divide(elements, 2), 1);
      break;
    case Format::q4o:
      if (cols > max_q4o_cols || outliers > elements) return false;
      layout->code_table = sections.add(64, 1);
      layout->column_scale = sections.add(cols, 1);
      layout->row_scale = sections.add(rows, 2);
      layout->scale = sections.add(row_blocks, 1);
      layout->code = sections.add(row_blocks, 16);
      layout->outlier_base = sections.add(ceil_divide(rows, outlier_group), 4);
      layout->outlier_start = sections.add(rows, 2);
      layout->outlier_col = sections.add(outliers, 2);
      layout->outlier = sections.add(outliers, 2);
      break;
  }
  layout->bytes = sections.end();
  return !sections.overflow();
}

airk_status view_weight(airk_context *context, const char *op, int32_t format, airk_ptr address, uint64_t weight_bytes, uint64_t rows,
                        uint64_t cols, uint64_t outliers, Weight *weight) {
  *weight = Weight{};
  if (!format_of(format, &weight->format)) return fail(context, AIRK_INVALID, "Cannot %s: weight format %d is unknown", op, format);
  const char *name = format_name(weight->format);
  Layout layout;
  if (!layout_of(weight->format, rows, cols, outliers, &layout)) {
    return fail(context, AIRK_INVALID, "Cannot %s: %llu x %llu with %llu outliers is no valid shape of a %s extent", op,
                static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols), static_cast<unsigned long long>(outliers), name);
  }
  if (weight_bytes < layout.bytes) {
    return fail(context, AIRK_INVALID, "Cannot %s: the %s extent of %llu x %llu has %llu bytes, required %llu", op, name,
                static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols),
                static_cast<unsigned long long>(weight_bytes), static_cast<unsigned long long>(layout.bytes));
  }
  if (address == 0 || address % 4 != 0) {
    return fail(context, AIRK_INVALID, "Cannot %s: the weight's address 0x%llx is null or not a multiple of 4", op,
                static_cast<unsigned long long>(address));
  }
  weight->rows = rows;
  weight->cols = cols;
  weight->blocks = ceil_divide(cols, block_cols);
  weight->outliers = outliers;
  const uint8_t *base = at<const uint8_t>(address);
  switch (weight->format) {
    case Format::f32:
    case Format::f16:
    case Format::bf16:
      weight->dense = {base + layout.values};
      break;
    case Format::q8:
      weight->q8 = {reinterpret_cast<const uint16_t *>(base + layout.scale), reinterpret_cast<const int8_t *>(base + layout.code)};
      break;
    case Format::nf4:
      weight->nf4 = {reinterpret_cast<const float *>(base + layout.scale), base + layout.code};
      break;
    case Format::q4o:
      weight->q4o = {reinterpret_cast<const int8_t *>(base + layout.code_table),
                     base + layout.column_scale,
                     reinterpret_cast<const uint16_t *>(base + layout.row_scale),
                     reinterpret_cast<const int8_t *>(base + layout.scale),
                     base + layout.code,
                     reinterpret_cast<const uint32_t *>(base + layout.outlier_base),
                     reinterpret_cast<const uint16_t *>(base + layout.outlier_start),
                     reinterpret_cast<const uint16_t *>(base + layout.outlier_col),
                     reinterpret_cast<const uint16_t *>(base + layout.outlier)};
      break;
  }
  return AIRK_OK;
}

bool outliers_of_row(const Weight &weight, uint64_t row, uint64_t *begin, uint64_t *end) {
  const Q4oView &q = weight.q4o;
  const uint64_t next = row + 1;
  *begin = uint64_t{q.outlier_base[row / outlier_group]} + q.outlier_start[row];
  *end = next == weight.rows ? weight.outliers : uint64_t{q.outlier_base[next / outlier_group]} + q.outlier_start[next];
  return *begin <= *end && *end <= weight.outliers;
}

airk_status fail_outliers(airk_context *context, const char *op) {
  return fail(context, AIRK_INVALID, "Cannot %s: the outlier sections of the q4o extent are corrupt", op);
}

float column_scale_value(uint8_t u) {
  static const float sixteenths[16] = AIRK_POWERS_OF_A_SIXTEENTH;
  return std::ldexp(sixteenths[u & 15], (u >> 4) - 8);
}

}  // namespace airk

using namespace airk;

airk_status airk_format_id(const char *name, int32_t *format) {
  if (name == nullptr || format == nullptr) return AIRK_INVALID;
  for (int32_t id = 0; id < format_count; id++) {
    if (std::strcmp(name, names[id]) == 0) {
      *format = id;
      return AIRK_OK;
    }
  }
  return AIRK_UNSUPPORTED;
}

airk_status airk_extent_bytes(int32_t format, uint64_t rows, uint64_t cols, uint64_t outliers, uint64_t *bytes) {
  Format known;
  Layout layout;
  if (bytes == nullptr || !format_of(format, &known) || !layout_of(known, rows, cols, outliers, &layout)) return AIRK_INVALID;
  *bytes = layout.bytes;
  return AIRK_OK;
}
