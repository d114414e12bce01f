#include "formats.h"

#include <cmath>
#include <cstring>

#include "sections.h"

namespace airk {

const float nf4_values[16] = AIRK_NF4_VALUES;

namespace {

const char *const names[plain_format_count] = {"f32", "f16", "bf16", "q8", "nf4", "q4o"};

// An id's lowest four bits are the Format; above them a packed format has its Packing.
constexpr int32_t format_bits = 4;

// The sizes of an extent of the format with this id.
struct Described {
  Format format;
  Packing packing;
  Layout layout;
  PackedLayout packed;
};

bool describe(int32_t id, uint64_t rows, uint64_t cols, uint64_t outliers, Described *d) {
  if (!format_of(id, &d->format)) return false;
  if (d->format != Format::packed) return layout_of(d->format, rows, cols, outliers, &d->layout);
  d->layout = Layout{};
  return packing_of(id >> format_bits, &d->packing) && outliers == 0 && packed_layout_of(d->packing, rows, cols, &d->packed, &d->layout.bytes);
}

}  // namespace

bool format_of(int32_t id, Format *format) {
  const int32_t format_id = id & ((1 << format_bits) - 1);
  Packing packing;
  if (id < 0 || format_id > plain_format_count) return false;
  *format = static_cast<Format>(format_id);
  return *format == Format::packed ? packing_of(id >> format_bits, &packing) : format_id == id;
}

const char *format_name(Format format) { return format == Format::packed ? "packed" : names[static_cast<int>(format)]; }

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
    case Format::packed:
      return false;
  }
  layout->bytes = sections.end();
  return !sections.overflow();
}

airk_status view_weight(airk_context *context, const char *op, int32_t format, airk_ptr address, uint64_t weight_bytes, uint64_t rows,
                        uint64_t cols, uint64_t outliers, Weight *weight) {
  *weight = Weight{};
  if (!format_of(format, &weight->format)) return fail(context, AIRK_INVALID, "Cannot %s: weight format %d is unknown", op, format);
  Described described = {};
  const bool valid = describe(format, rows, cols, outliers, &described), packed = weight->format == Format::packed;
  const Layout &layout = described.layout;
  const char *name = packed ? family_name(described.packing.family) : format_name(weight->format);
  if (!valid) {
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
    case Format::packed:
      weight->packed = packed_view_of(described.packing, described.packed, cols, base);
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
  for (int32_t id = 0; id < plain_format_count; id++) {
    if (std::strcmp(name, names[id]) == 0) {
      *format = id;
      return AIRK_OK;
    }
  }
  Packing packing;
  if (!parse_packing(name, &packing)) return AIRK_UNSUPPORTED;
  *format = static_cast<int32_t>(Format::packed) | packing_bits(packing) << format_bits;
  return AIRK_OK;
}

airk_status airk_extent_bytes(int32_t format, uint64_t rows, uint64_t cols, uint64_t outliers, uint64_t *bytes) {
  Described described = {};
  if (bytes == nullptr || !describe(format, rows, cols, outliers, &described)) return AIRK_INVALID;
  *bytes = described.layout.bytes;
  return AIRK_OK;
}
