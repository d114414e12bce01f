// Matrix products of few tokens, bound by the reading of the weights: every weight is read and decoded once for all tokens.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "matmul.h"

namespace airk {
namespace {

// Rows whose sums wait on the stack for their outliers, scale and bias. Few, so that what the dense loop has asked of the memory
// is still on its way when it goes on.
constexpr uint64_t run_rows = 32;
constexpr uint64_t line_bytes = 64;
constexpr uint64_t rows_ahead = 64;  // at which row scales and starts of outliers are asked of the memory

// Writes where the outliers of rows [begin, end) start, and where the last ones end, and has them brought in, as well as what the same
// will need of the rows after these. Returns false where the outlier sections are corrupt.
bool find_outliers(const Weight &w, uint64_t begin, uint64_t end, uint64_t *start) {
  const Q4oView &q = w.q4o;
  __builtin_prefetch(q.outlier_start + begin + rows_ahead);
  __builtin_prefetch(q.row_scale + begin + rows_ahead);
  for (uint64_t row = begin; row < end; row++) start[row - begin] = uint64_t{q.outlier_base[row / outlier_group]} + q.outlier_start[row];
  uint64_t last_begin;
  if (!outliers_of_row(w, end - 1, &last_begin, &start[end - begin])) return false;
  for (uint64_t row = begin; row < end; row++) {
    if (start[row - begin] > start[row - begin + 1]) return false;
  }
  for (uint64_t i = start[0]; i < start[end - begin]; i += line_bytes / sizeof(uint16_t)) {
    __builtin_prefetch(q.outlier_col + i);
    __builtin_prefetch(q.outlier + i);
  }
  return true;
}

// Adds what the dense loop left out and writes y. Returns false where the outlier sections are corrupt.
// interleaved: the prepared activations as [cols][max_dot_tokens], or nullptr for one token or where there are no outliers.
bool finish_rows(const MatmulArguments &a, const Kernels &kernels, const Activations &x, const float *interleaved, uint64_t row_begin,
                 uint64_t row_end, const uint64_t *start, const float *sums) {
  const Weight &w = a.weight;
  if (w.format != Format::q4o) {
    for (uint64_t t = 0; t < a.tokens; t++) {
      for (uint64_t row = row_begin; row < row_end; row++)
        a.y[t * a.y_stride + row] = sums[t * run_rows + row - row_begin] + (a.bias == nullptr ? 0.0f : a.bias[row]);
    }
    return true;
  }
  if (a.tokens == 1) {
    float sparse[run_rows];
    const uint64_t rows = row_end - row_begin;
    if (!kernels.sparse_rows(w.q4o.outlier_col, w.q4o.outlier, start, rows, w.cols, x.row[0], sparse)) return false;
    const uint16_t *scale = w.q4o.row_scale + row_begin;
    float *y = a.y + row_begin;
    for (uint64_t i = 0; i < rows; i++) sparse[i] = (sums[i] + outlier_unit * sparse[i]) * from_bf16(scale[i]);
    for (uint64_t i = 0; i < rows; i++) y[i] = sparse[i] + (a.bias == nullptr ? 0.0f : a.bias[row_begin + i]);
    return true;
  }
  for (uint64_t row = row_begin; row < row_end; row++) {
    float sparse[max_dot_tokens] = {};
    if (interleaved != nullptr) {
      const uint64_t begin = start[row - row_begin], count = start[row - row_begin + 1] - begin;
      if (!kernels.sparse_dots(w.q4o.outlier_col + begin, w.q4o.outlier + begin, count, w.cols, interleaved, sparse)) return false;
    }
    const float scale = from_bf16(w.q4o.row_scale[row]), bias = a.bias == nullptr ? 0.0f : a.bias[row];
    for (uint64_t t = 0; t < a.tokens; t++) a.y[t * a.y_stride + row] = (sums[t * run_rows + row - row_begin] + outlier_unit * sparse[t]) * scale + bias;
  }
  return true;
}

// Hands out rows. Each thread walks through a part of its own, since the first rows of a run come from memory unannounced, and whoever
// is done takes from the ends of the others' parts, so that all end together.
class RowQueue {
 public:
  RowQueue(uint64_t rows, uint64_t threads) : parts_(threads) {
    const uint64_t runs = (rows + run_rows - 1) / run_rows;
    for (uint64_t i = 0; i < threads; i++) {
      parts_[i].ends.store(pack(static_cast<uint32_t>(runs * i / threads), static_cast<uint32_t>(runs * (i + 1) / threads)), std::memory_order_relaxed);
    }
  }

  // Returns false where none are left, else the index of a run.
  bool take(uint64_t part, uint64_t *run) {
    if (take_first(parts_[part], run)) return true;
    for (uint64_t i = 1; i < parts_.size(); i++) {
      if (take_last(parts_[(part + i) % parts_.size()], run)) return true;
    }
    return false;
  }

 private:
  struct alignas(64) Part {
    std::atomic<uint64_t> ends{0};  // of the runs that are left: the first << 32 | behind the last
  };
  static uint64_t pack(uint32_t first, uint32_t end) { return uint64_t{first} << 32 | end; }
  static uint32_t first_of(uint64_t ends) { return static_cast<uint32_t>(ends >> 32); }
  static uint32_t end_of(uint64_t ends) { return static_cast<uint32_t>(ends); }

  static bool take_first(Part &part, uint64_t *run) {
    uint64_t ends = part.ends.load(std::memory_order_relaxed);
    do {
      if (first_of(ends) >= end_of(ends)) return false;
    } while (!part.ends.compare_exchange_weak(ends, pack(first_of(ends) + 1, end_of(ends)), std::memory_order_relaxed));
    *run = first_of(ends);
    return true;
  }
  static bool take_last(Part &part, uint64_t *run) {
    uint64_t ends = part.ends.load(std::memory_order_relaxed);
    do {
      if (first_of(ends) >= end_of(ends)) return false;
    } while (!part.ends.compare_exchange_weak(ends, pack(first_of(ends), end_of(ends) - 1), std::memory_order_relaxed));
    *run = end_of(ends) - 1;
    return true;
  }

  std::vector<Part> parts_;
};

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

  const int64_t threads = thread_count(a.context);
  RowQueue queue(w.rows, static_cast<uint64_t>(threads));
  std::atomic<bool> corrupt{false};
  parallel_for(a.context, threads, 1, [&](int64_t part, int64_t, int) {
    float sums[max_dot_tokens * run_rows];
    uint64_t start[run_rows + 1], run;
    while (queue.take(static_cast<uint64_t>(part), &run)) {
      const uint64_t row = run * run_rows, row_end = std::min(row + run_rows, w.rows);
      if (q4o && !find_outliers(w, row, row_end, start)) {
        corrupt = true;
        return;
      }
      if (fast != nullptr) {
        fast->dot(w, row, row_end, packed, tokens, sums, run_rows);
      } else {
        kernels.dot(w, row, row_end, x, tokens, sums, run_rows);
      }
      if (!finish_rows(a, kernels, x, interleaved, row, row_end, start, sums)) corrupt = true;
    }
  });
  return corrupt ? fail_outliers(a.context, "matmul") : AIRK_OK;
}

}  // namespace airk
