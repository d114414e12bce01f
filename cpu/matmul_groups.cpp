// airk_matmul_grouped. Its blocks are small beside a model's other matrices, so one way serves any number of tokens: runs of rows of one
// group, which stay in the cache while the tokens pass a few at a time.
#include <algorithm>
#include <atomic>
#include <vector>

#include "arguments.h"
#include "matmul.h"
#include "row_kernels.h"

namespace airk {
namespace {

constexpr uint64_t most_run_rows = 128;

struct GroupedMatmul {
  MatmulArguments product;
  uint64_t x_group_stride, first_row, group_rows;
};

// Rows of one group.
struct Run {
  uint64_t begin, end, group;
};

std::vector<Run> cut_runs(const GroupedMatmul &a) {
  std::vector<Run> runs;
  const uint64_t rows = a.product.weight.rows;
  for (uint64_t row = 0; row < rows;) {
    const uint64_t group = (a.first_row + row) / a.group_rows, left = a.group_rows - (a.first_row + row) % a.group_rows;
    const uint64_t end = row + std::min({left, rows - row, most_run_rows});
    runs.push_back({row, end, group});
    row = end;
  }
  return runs;
}

// What a row's outliers add for each token. Returns false where the outlier sections are corrupt.
bool add_outliers(const Weight &w, uint64_t row, const Activations &x, int tokens, float *sums) {
  uint64_t begin, end;
  if (!outliers_of_row(w, row, &begin, &end)) return false;
  for (uint64_t i = begin; i < end; i++) {
    const uint64_t col = w.q4o.outlier_col[i];
    if (col >= w.cols) return false;
    const float value = outlier_unit * from_f16(w.q4o.outlier[i]);
    for (int t = 0; t < tokens; t++) sums[static_cast<uint64_t>(t) * most_run_rows] += value * x.row[t][col];
  }
  return true;
}

// prepared: [max_dot_tokens][blocks * 32], a thread's own.
bool multiply_run(const GroupedMatmul &a, const Kernels &kernels, const float *column_scale, const Run &run, float *prepared) {
  const MatmulArguments &p = a.product;
  const Weight &w = p.weight;
  const uint64_t padded = w.blocks * block_cols;
  const bool prepares = column_scale != nullptr || padded != w.cols;
  float sums[max_dot_tokens * most_run_rows];
  for (uint64_t first = 0; first < p.tokens; first += max_dot_tokens) {
    const int tokens = static_cast<int>(std::min<uint64_t>(max_dot_tokens, p.tokens - first));
    Activations x = {};
    for (int t = 0; t < tokens; t++) {
      const uint64_t token = first + static_cast<uint64_t>(t);
      const float *from = p.x + token * p.x_stride + run.group * a.x_group_stride;
      float *own = prepared + static_cast<uint64_t>(t) * padded;
      if (prepares) prepare_activations(w, column_scale, from, 0, padded, own);
      x.row[t] = prepares ? own : from;
    }
    kernels.dot(w, run.begin, run.end, x, tokens, sums, most_run_rows);
    for (uint64_t row = run.begin; row < run.end; row++) {
      float *of_row = sums + (row - run.begin);
      if (w.format == Format::q4o && !add_outliers(w, row, x, tokens, of_row)) return false;
      const float scale = w.format == Format::q4o ? from_bf16(w.q4o.row_scale[row]) : 1.0f, bias = p.bias == nullptr ? 0.0f : p.bias[row];
      for (int t = 0; t < tokens; t++) {
        p.y[(first + static_cast<uint64_t>(t)) * p.y_stride + row] = of_row[static_cast<uint64_t>(t) * most_run_rows] * scale + bias;
      }
    }
  }
  return true;
}

airk_status multiply_by_groups(const GroupedMatmul &a) {
  const MatmulArguments &p = a.product;
  const Weight &w = p.weight;
  const Kernels &kernels = *kernels_of(isa_of(p.context));
  const uint64_t padded = w.blocks * block_cols, thread_floats = max_dot_tokens * padded;
  const uint64_t floats = padded + static_cast<uint64_t>(thread_count(p.context)) * thread_floats;
  float *memory = static_cast<float *>(scratch(p.context, floats * sizeof(float)));
  if (memory == nullptr) return fail(p.context, AIRK_OUT_OF_MEMORY, "Cannot matmul: no scratch memory");
  float *column_scale = w.format == Format::q4o ? memory : nullptr;
  if (column_scale != nullptr) decode_column_scale(w, column_scale);
  const std::vector<Run> runs = cut_runs(a);
  // A weight costs about as much as a pass over an element, and a multiplication about a quarter of that.
  const int64_t cost = static_cast<int64_t>(std::min(a.group_rows, most_run_rows) * w.cols * (4 + p.tokens) / 4);
  std::atomic<bool> corrupt{false};
  parallel_for(p.context, static_cast<int64_t>(runs.size()), grain_of(cost), [&](int64_t begin, int64_t end, int thread) {
    float *prepared = memory + padded + static_cast<uint64_t>(thread) * thread_floats;
    for (int64_t i = begin; i < end; i++) {
      if (!multiply_run(a, kernels, column_scale, runs[static_cast<std::size_t>(i)], prepared)) corrupt = true;
    }
  });
  return corrupt ? fail_outliers(p.context, "matmul") : AIRK_OK;
}

}  // namespace
}  // namespace airk

using namespace airk;

airk_status airk_matmul_grouped(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t x_group_stride,
                                uint64_t tokens, int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols,
                                uint64_t outliers, airk_ptr bias, uint64_t first_row, uint64_t group_rows, int32_t precision) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = context_of(stream);
  GroupedMatmul arguments = {};
  MatmulArguments &product = arguments.product;
  airk_status status = view_weight(context, "matmul", format, weight, weight_bytes, rows, cols, outliers, &product.weight);
  if (status == AIRK_OK) {
    status = check_matmul_grouped(context, y, y_stride, x, x_stride, x_group_stride, tokens, rows, cols, bias, first_row, group_rows, precision);
  }
  if (status != AIRK_OK || tokens == 0) return status;
  product.context = context;
  product.x = at<const float>(x);
  product.y = at<float>(y);
  product.bias = at<const float>(bias);
  product.x_stride = x_stride;
  product.y_stride = y_stride;
  product.tokens = tokens;
  arguments.x_group_stride = x_group_stride;
  arguments.first_row = first_row;
  arguments.group_rows = group_rows;
  return enqueue(stream, [arguments]() -> airk_status { return multiply_by_groups(arguments); });
}
