// Matrix products of few tokens, bound by the reading of the weights: every weight is read and decoded once for all tokens.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "matmul.h"

namespace airk {
namespace {

constexpr uint64_t run_rows = 128;  // rows whose sums wait on the stack for their outliers, scale and bias
constexpr uint64_t most_run_rows = 1024;  // rows that a thread takes at a time

// Adds what the dense loop left out and writes y. Returns false where the outlier sections are corrupt.
// interleaved: the prepared activations as [cols][max_dot_tokens], or nullptr for one token.
bool finish_rows(const MatmulArguments &a, const Kernels &kernels, const Activations &x, const float *interleaved, uint64_t row_begin,
                 uint64_t row_end, const float *sums) {
  const Weight &w = a.weight;
  for (uint64_t row = row_begin; row < row_end; row++) {
    float sparse[max_dot_tokens] = {}, scale = 1.0f;
    if (w.format == Format::q4o) {
      uint64_t begin, end;
      if (!outliers_of_row(w, row, &begin, &end)) return false;
      const uint16_t *col = w.q4o.outlier_col + begin, *value = w.q4o.outlier + begin;
      const bool valid = interleaved == nullptr ? kernels.sparse_dot(col, value, end - begin, w.cols, x.row[0], sparse)
                                                : kernels.sparse_dots(col, value, end - begin, w.cols, interleaved, sparse);
      if (!valid) return false;
      scale = from_bf16(w.q4o.row_scale[row]);
    }
    for (uint64_t t = 0; t < a.tokens; t++) {
      const float sum = sums[t * run_rows + row - row_begin] + outlier_unit * sparse[t];
      a.y[t * a.y_stride + row] = sum * scale + (a.bias == nullptr ? 0.0f : a.bias[row]);
    }
  }
  return true;
}

}  // namespace

airk_status multiply_by_rows(const MatmulArguments &a) {
  const Weight &w = a.weight;
  const Isa isa = isa_of(a.context);
  const Kernels &kernels = *kernels_of(isa);
  const FastKernels *fast = a.fast ? fast_kernels_of(isa, w.format, a.tokens) : nullptr;
  const int tokens = static_cast<int>(a.tokens);
  const uint64_t padded = w.blocks * block_cols;
  const bool prepare = w.format == Format::q4o || padded != w.cols || fast != nullptr;

  // Scratch: prepared activations, the column scale, interleaved activations for outliers of several tokens, packed activations.
  const bool q4o = w.format == Format::q4o, interleave = q4o && w.outliers > 0 && tokens > 1;
  const uint64_t prepared_floats = prepare ? a.tokens * padded : 0, scale_floats = q4o ? padded : 0;
  const uint64_t interleaved_floats = interleave ? padded * max_dot_tokens : 0;
  const uint64_t floats = prepared_floats + scale_floats + interleaved_floats, packed_bytes = fast == nullptr ? 0 : fast->packed_bytes(w, tokens);
  const std::size_t bytes = floats * sizeof(float) + packed_bytes + 64;
  const ScratchLabel label = {reinterpret_cast<uintptr_t>(a.x), a.x_stride, a.tokens, w.cols, static_cast<uint64_t>(w.format),
                              reinterpret_cast<uintptr_t>(fast), interleave, 0};
  void *kept = a.continues ? kept_scratch(a.context, label, bytes) : nullptr;
  float *memory = static_cast<float *>(kept != nullptr ? kept : scratch(a.context, bytes));
  if (memory == nullptr) return fail(a.context, AIRK_OUT_OF_MEMORY, "Cannot matmul: no scratch memory");
  float *prepared = memory, *column_scale = q4o ? memory + prepared_floats : nullptr;
  float *interleaved = interleave ? memory + prepared_floats + scale_floats : nullptr;
  float *packed = memory + floats;
  if (kept == nullptr) {
    if (q4o) decode_column_scale(w, column_scale);
    if (interleave) std::memset(interleaved, 0, interleaved_floats * sizeof(float));
    std::memset(packed, 0, packed_bytes);
  }

  Activations x = {};
  for (uint64_t t = 0; t < a.tokens; t++) x.row[t] = prepare ? prepared + t * padded : a.x + t * a.x_stride;
  if (prepare && kept == nullptr) {
    parallel_for(a.context, tokens, 1, [&](int64_t begin, int64_t end, int) {
      for (uint64_t t = static_cast<uint64_t>(begin); t < static_cast<uint64_t>(end); t++) {
        prepare_activations(w, column_scale, a.x + t * a.x_stride, 0, padded, prepared + t * padded);
        if (fast != nullptr) fast->pack(w, prepared + t * padded, static_cast<int>(t), packed);
        for (uint64_t c = 0; interleave && c < padded; c++) interleaved[c * max_dot_tokens + t] = prepared[t * padded + c];
      }
    });
    keep_scratch(a.context, label);
  }

  // Long runs: the first rows of each come from memory unannounced, which costs more than threads that do not end together.
  const uint64_t share = w.rows / (static_cast<uint64_t>(thread_count(a.context)) * 2);
  const int64_t grain = static_cast<int64_t>(std::clamp<uint64_t>(share / 8 * 8, 16, most_run_rows));
  std::atomic<bool> corrupt{false};
  parallel_for(a.context, static_cast<int64_t>(w.rows), grain, [&](int64_t begin, int64_t end, int) {
    float sums[max_dot_tokens * run_rows];
    for (uint64_t row = static_cast<uint64_t>(begin); row < static_cast<uint64_t>(end); row += run_rows) {
      const uint64_t row_end = std::min(row + run_rows, static_cast<uint64_t>(end));
      if (fast != nullptr) {
        fast->dot(w, row, row_end, packed, tokens, sums, run_rows);
      } else {
        kernels.dot(w, row, row_end, x, tokens, sums, run_rows);
      }
      if (!finish_rows(a, kernels, x, interleaved, row, row_end, sums)) corrupt = true;
    }
  });
  return corrupt ? fail_outliers(a.context, "matmul") : AIRK_OK;
}

}  // namespace airk
