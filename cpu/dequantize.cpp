// airk_dequantize and airk_embedding: weights as float32.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "arguments.h"
#include "kernels.h"
#include "matmul.h"

namespace airk {
namespace {

// Writes one row [cols]. Returns false where its outliers are corrupt.
bool dequantize_row(const Weight &w, const Kernels &kernels, const float *column_scale, uint64_t row, float *y) {
  const uint64_t whole_blocks = w.cols / block_cols, rest = w.cols % block_cols;
  kernels.decode(w, row, 0, whole_blocks, y);
  if (rest != 0) {
    float last[block_cols];
    kernels.decode(w, row, whole_blocks, w.blocks, last);
    std::memcpy(y + whole_blocks * block_cols, last, rest * sizeof(float));
  }
  if (w.format != Format::q4o) return true;
  uint64_t begin, end;
  if (!outliers_of_row(w, row, &begin, &end)) return false;
  for (uint64_t i = begin; i < end; i++) {
    const uint64_t col = w.q4o.outlier_col[i];
    if (col >= w.cols) return false;
    y[col] += outlier_unit * from_f16(w.q4o.outlier[i]);
  }
  const float row_scale = from_bf16(w.q4o.row_scale[row]);
  for (uint64_t c = 0; c < w.cols; c++) y[c] = row_scale * column_scale[c] * y[c];
  return true;
}

// Dequantizes count rows, the i-th being row_of(i), on all threads.
template <class RowOf>
airk_status dequantize_rows(airk_context *context, const char *op, const Weight &w, uint64_t count, const RowOf &row_of, float *y) {
  const Kernels &kernels = *kernels_of(isa_of(context));
  float *column_scale = nullptr;
  if (w.format == Format::q4o) {
    column_scale = static_cast<float *>(scratch(context, w.cols * sizeof(float)));
    if (column_scale == nullptr) return fail(context, AIRK_OUT_OF_MEMORY, "Cannot %s: no scratch memory", op);
    decode_column_scale(w, column_scale);
  }
  std::atomic<bool> corrupt{false};
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(32768 / w.cols));
  parallel_for(context, static_cast<int64_t>(count), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const uint64_t index = static_cast<uint64_t>(i);
      if (!dequantize_row(w, kernels, column_scale, row_of(index), y + index * w.cols)) corrupt = true;
    }
  });
  return corrupt ? fail_outliers(context, op) : AIRK_OK;
}

}  // namespace
}  // namespace airk

using namespace airk;

airk_status airk_dequantize(airk_stream *stream, airk_ptr y, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows,
                            uint64_t cols, uint64_t outliers) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = context_of(stream);
  Weight w;
  airk_status status = view_weight(context, "dequantize", format, weight, weight_bytes, rows, cols, outliers, &w);
  if (status == AIRK_OK) status = check_rows(context, "dequantize", y, rows, cols);
  if (status != AIRK_OK) return status;
  return enqueue(stream, [=]() -> airk_status {
    return dequantize_rows(context, "dequantize", w, w.rows, [](uint64_t row) { return row; }, at<float>(y));
  });
}

airk_status airk_embedding(airk_stream *stream, airk_ptr y, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows,
                           uint64_t cols, uint64_t outliers, airk_ptr ids, uint64_t tokens) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = context_of(stream);
  Weight w;
  airk_status status = view_weight(context, "embedding", format, weight, weight_bytes, rows, cols, outliers, &w);
  if (status != AIRK_OK || tokens == 0) return status;
  status = check_rows(context, "embedding", y, tokens, cols);
  if (status == AIRK_OK) status = check_ids(context, "embedding", ids);
  if (status != AIRK_OK) return status;
  return enqueue(stream, [=]() -> airk_status {
    const int32_t *id = at<const int32_t>(ids);
    for (uint64_t t = 0; t < tokens; t++) {
      if (id[t] < 0 || static_cast<uint64_t>(id[t]) >= w.rows) {
        return fail(context, AIRK_INVALID, "Cannot embedding: id %d of token %llu, required 0 to %llu", id[t],
                    static_cast<unsigned long long>(t), static_cast<unsigned long long>(w.rows - 1));
      }
    }
    return dequantize_rows(context, "embedding", w, tokens, [id](uint64_t t) { return static_cast<uint64_t>(id[t]); }, at<float>(y));
  });
}
