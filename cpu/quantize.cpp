// The quantizers' entry points: validation, and the choice by format.
#include "quantize.h"

#include <new>

using namespace airk;

namespace {

airk_status check_source(airk_context *context, const char *op, int32_t format, const Source &source, Format *known) {
  if (!format_of(format, known)) return fail(context, AIRK_INVALID, "Cannot %s: weight format %d is unknown", op, format);
  if (*known == Format::packed) return fail(context, AIRK_UNSUPPORTED, "Cannot %s: packed formats are read, not made", op);
  Layout layout;
  uint64_t elements, bytes;
  if (!layout_of(*known, source.rows, source.cols, 0, &layout) || multiply_overflows(source.rows, source.cols, &elements) ||
      multiply_overflows(elements, 4, &bytes)) {
    return fail(context, AIRK_INVALID, "Cannot %s: %llu x %llu is no valid shape of a %s extent", op, static_cast<unsigned long long>(source.rows),
                static_cast<unsigned long long>(source.cols), format_name(*known));
  }
  if (source.type != AIRK_F32 && source.type != AIRK_F16 && source.type != AIRK_BF16) {
    return fail(context, AIRK_INVALID, "Cannot %s: element type %d, required AIRK_F32, AIRK_F16 or AIRK_BF16", op, source.type);
  }
  if (source.data == nullptr || reinterpret_cast<uintptr_t>(source.data) % (source.type == AIRK_F32 ? 4 : 2) != 0) {
    return fail(context, AIRK_INVALID, "Cannot %s: source is null or not aligned to its elements", op);
  }
  return AIRK_OK;
}

uint64_t parameter_bytes_of(Format format, uint64_t cols) { return format == Format::q4o ? 16 + cols : 0; }

airk_status check_parameters(airk_context *context, const char *op, Format format, uint64_t cols, const uint8_t *parameters, uint64_t bytes) {
  const uint64_t required = parameter_bytes_of(format, cols);
  if (bytes == required && (parameters != nullptr || required == 0)) return AIRK_OK;
  return fail(context, AIRK_INVALID, "Cannot %s: %llu bytes of parameters, required %llu", op, static_cast<unsigned long long>(bytes),
              static_cast<unsigned long long>(required));
}

}  // namespace

airk_status airk_quantizer_parameter_bytes(int32_t format, uint64_t cols, uint64_t *bytes) {
  Format known;
  if (bytes == nullptr || cols == 0 || !format_of(format, &known) || (known == Format::q4o && cols > max_q4o_cols)) return AIRK_INVALID;
  *bytes = parameter_bytes_of(known, cols);
  return AIRK_OK;
}

airk_status airk_quantizer_train(airk_context *context, int32_t format, const uint8_t *source, int32_t type, uint64_t rows, uint64_t cols,
                                 uint8_t *parameters, uint64_t parameter_bytes) {
  if (context == nullptr) return AIRK_INVALID;
  const Source tensor = {source, type, rows, cols};
  Format known;
  airk_status status = check_source(context, "train", format, tensor, &known);
  if (status == AIRK_OK) status = check_parameters(context, "train", known, cols, parameters, parameter_bytes);
  if (status != AIRK_OK || known != Format::q4o) return status;
  try {
    return train_q4o(context, tensor, parameters);
  } catch (const std::bad_alloc &) {
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot train: no memory");
  }
}

airk_status airk_quantized_bytes_bound(int32_t format, uint64_t rows, uint64_t cols, uint64_t *bytes) {
  Format known;
  Layout layout;
  if (bytes == nullptr || !format_of(format, &known)) return AIRK_INVALID;
  if (known == Format::packed) return airk_extent_bytes(format, rows, cols, 0, bytes);
  if (!layout_of(known, rows, cols, 0, &layout)) return AIRK_INVALID;
  uint64_t outliers = 0;
  if (known == Format::q4o) {
    const uint64_t rest = rows % outlier_group;
    outliers = rows / outlier_group * outlier_cap(outlier_group, cols) + (rest == 0 ? 0 : outlier_cap(rest, cols));
  }
  if (!layout_of(known, rows, cols, outliers, &layout)) return AIRK_INVALID;
  *bytes = layout.bytes;
  return AIRK_OK;
}

airk_status airk_quantize(airk_context *context, int32_t format, const uint8_t *source, int32_t type, uint64_t rows, uint64_t cols,
                          const uint8_t *parameters, uint64_t parameter_bytes, uint8_t *extent, uint64_t extent_capacity, uint64_t *extent_bytes,
                          uint64_t *outliers, double *statistics) {
  if (context == nullptr) return AIRK_INVALID;
  QuantizeArguments arguments = {context, {source, type, rows, cols}, parameters, extent, extent_capacity, 0, 0, 0.0, 0.0};
  Format known;
  airk_status status = check_source(context, "quantize", format, arguments.source, &known);
  if (status == AIRK_OK) status = check_parameters(context, "quantize", known, cols, parameters, parameter_bytes);
  if (status != AIRK_OK) return status;
  if (extent == nullptr || extent_bytes == nullptr || outliers == nullptr || statistics == nullptr) {
    return fail(context, AIRK_INVALID, "Cannot quantize: extent, extent_bytes, outliers or statistics is null");
  }
  try {
    status = known == Format::q4o ? quantize_q4o(&arguments) : quantize_simple(known, &arguments);
  } catch (const std::bad_alloc &) {
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot quantize: no memory");
  }
  if (status != AIRK_OK) return status;
  *extent_bytes = arguments.extent_bytes;
  *outliers = arguments.outliers;
  statistics[0] = arguments.squared_weights;
  statistics[1] = arguments.squared_errors;
  return AIRK_OK;
}
