// Trains what a q4o tensor shares: the column scale and the code table.
//
// Column scale: columns and rows are brought to equal magnitude in turn, as in Sinkhorn's normalisation (SINQ, arXiv:2509.22944).
// Code table: Lloyd's algorithm on the weights of a sample, divided by the scales that the quantizer would choose.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats.h"
#include "quantize.h"

namespace airk {
namespace {

constexpr int column_rounds = 4, lloyd_rounds = 6;
constexpr double largest_deviation = 3.0;        // of a weight, in its column's terms: outliers must not scale a column
constexpr uint64_t lloyd_weights = 1 << 20;      // a larger sample changes the table by less than its rounding
const float first_table[16] = {-.877f, -.6611f, -.5124f, -.3913f, -.2859f, -.1903f, -.1002f, -.0112f,
                               .0801f, .1738f,  .2717f,  .3765f,  .4922f,  .6266f,  .7864f,  1.0f};

void round_table(const double *values, int8_t *table) {
  double largest = 0.0;
  for (int i = 0; i < 16; i++) largest = std::max(largest, std::fabs(values[i]));
  int rounded[16];
  for (int i = 0; i < 16; i++) rounded[i] = static_cast<int>(std::lround(values[i] / largest * 127.0));
  // Strictly ascending and within a byte: pushed apart upwards, then back from the top.
  for (int i = 1; i < 16; i++) rounded[i] = std::max(rounded[i], rounded[i - 1] + 1);
  rounded[15] = std::min(rounded[15], 127);
  for (int i = 14; i >= 0; i--) rounded[i] = std::min(rounded[i], rounded[i + 1] - 1);
  for (int i = 0; i < 16; i++) table[i] = static_cast<int8_t>(rounded[i]);
}

class Trainer {
 public:
  Trainer(airk_context *context, const Source &source)
      : context_(context), source_(source), cols_(source.cols), blocks_((cols_ + block_cols - 1) / block_cols), log_scale_(cols_, 0.0) {
    rows_.resize(static_cast<size_t>(thread_count(context)), std::vector<float>(blocks_ * block_cols));
  }

  airk_status run(uint8_t *parameters) {
    const airk_status status = train_columns();
    if (status != AIRK_OK) return status;
    for (uint64_t c = 0; c < cols_; c++) {
      parameters[16 + c] = static_cast<uint8_t>(std::clamp(std::lround(log_scale_[c] * 16.0) + 128, 0L, 255L));
    }
    return train_table(parameters);
  }

 private:
  // Sums are taken over fixed runs of rows, so that they do not depend on the threads.
  static constexpr uint64_t run_rows = 32;

  airk_status train_columns() {
    const uint64_t runs = (source_.rows + run_rows - 1) / run_rows;
    std::vector<double> column(cols_);
    // One matrix of partial sums, at most 64 runs at a time, bounds the memory.
    constexpr uint64_t batch = 64;
    std::vector<float> partial(std::min(runs, batch) * cols_);
    std::vector<double> fourth(runs), used(runs);
    for (int round = 0; round < column_rounds; round++) {
      std::fill(column.begin(), column.end(), 0.0);
      std::vector<float> inverse(cols_);
      for (uint64_t c = 0; c < cols_; c++) inverse[c] = static_cast<float>(std::exp2(-log_scale_[c]));
      std::atomic<uint64_t> bad{~uint64_t{0}};
      for (uint64_t first = 0; first < runs; first += batch) {
        const uint64_t count = std::min(batch, runs - first);
        parallel_for(context_, static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end, int thread) {
          for (int64_t i = begin; i < end && !cancelled(context_); i++) {
            const uint64_t run = first + static_cast<uint64_t>(i);
            add_run(run, inverse.data(), rows_[static_cast<size_t>(thread)].data(), &partial[static_cast<uint64_t>(i) * cols_], &fourth[run], &used[run], &bad);
          }
        });
        if (cancelled(context_)) return fail(context_, AIRK_CANCELLED, "Cannot train: cancelled");
        if (bad != ~uint64_t{0}) return fail_not_finite(context_, "train", bad / cols_, bad % cols_);
        for (uint64_t i = 0; i < count; i++)
          for (uint64_t c = 0; c < cols_; c++) column[c] += partial[i * cols_ + c];
      }
      double rows_used = 0.0, fourth_moment = 0.0;
      for (uint64_t run = 0; run < runs; run++) {
        rows_used += used[run];
        fourth_moment += fourth[run];
      }
      if (rows_used == 0.0) return AIRK_OK;
      update(column, rows_used, fourth_moment / (rows_used * static_cast<double>(cols_)));
    }
    return AIRK_OK;
  }

  // Sums the squares of each column over a run of rows, each row in terms of its own magnitude.
  void add_run(uint64_t run, const float *inverse, float *row, float *sums, double *fourth, double *used, std::atomic<uint64_t> *bad) const {
    std::fill(sums, sums + cols_, 0.0f);
    *fourth = *used = 0.0;
    const uint64_t last = std::min((run + 1) * run_rows, source_.rows);
    for (uint64_t r = run * run_rows; r < last; r++) {
      const uint64_t col = load_row(source_, r, row);
      if (col != cols_) {
        const uint64_t position = r * cols_ + col;
        for (uint64_t known = *bad; position < known && !bad->compare_exchange_weak(known, position);) {
        }
        continue;
      }
      float largest = 0.0f;
      for (uint64_t c = 0; c < cols_; c++) largest = std::max(largest, std::fabs(row[c]));
      if (largest == 0.0f) continue;
      const int exponent = std::ilogb(largest);
      const float once = std::ldexp(1.0f, -(exponent / 2)), twice = std::ldexp(1.0f, -(exponent - exponent / 2));
      double square = 0.0;
      for (uint64_t c = 0; c < cols_; c++) {
        row[c] = row[c] * once * twice * inverse[c];
        square += static_cast<double>(row[c]) * row[c];
      }
      const float normalise = static_cast<float>(1.0 / std::sqrt(square / static_cast<double>(cols_)));
      constexpr float limit = static_cast<float>(largest_deviation * largest_deviation);
      double fourths = 0.0;
      for (uint64_t c = 0; c < cols_; c++) {
        const float value = row[c] * normalise, squared = std::min(value * value, limit);
        sums[c] += squared;
        fourths += static_cast<double>(squared) * squared;
      }
      *fourth += fourths;
      *used += 1.0;
    }
  }

  // Multiplies the columns' magnitudes into their scales, less what chance alone would make of equal columns.
  void update(const std::vector<double> &column, double rows_used, double fourth_moment) {
    std::vector<double> total(cols_, 0.0);
    double total_mean = 0.0, variance = 0.0, live = 0.0;
    for (uint64_t c = 0; c < cols_; c++) {
      if (column[c] <= 0.0) continue;
      total[c] = log_scale_[c] + 0.5 * std::log2(column[c] / rows_used);
      total_mean += total[c];
      live += 1.0;
    }
    if (live == 0.0) return;
    total_mean /= live;
    for (uint64_t c = 0; c < cols_; c++)
      if (column[c] > 0.0) variance += (total[c] - total_mean) * (total[c] - total_mean);
    variance /= live;
    // Of a mean of squares near 1, in squared log2 of its root.
    const double chance = std::max(0.0, fourth_moment - 1.0) / rows_used * 0.25 / (std::log(2.0) * std::log(2.0));
    const double keep = variance > 0.0 ? std::max(0.0, 1.0 - chance / variance) : 0.0;
    for (uint64_t c = 0; c < cols_; c++)
      if (column[c] > 0.0) log_scale_[c] = std::clamp((total[c] - total_mean) * keep, -8.0, 7.9375);
  }

  airk_status train_table(uint8_t *parameters) {
    const SearchKernels *search = search_kernels_of(isa_of(context_));
    std::vector<float> column_scale(blocks_ * block_cols, 1.0f), importance(blocks_ * block_cols, 0.0f);
    for (uint64_t c = 0; c < cols_; c++) {
      column_scale[c] = column_scale_value(parameters[16 + c]);
      importance[c] = column_scale[c] * column_scale[c];
    }
    const uint64_t wanted = std::max<uint64_t>(1, lloyd_weights / cols_), rows = std::min(source_.rows, wanted);
    struct Sums {
      double product[16], square[16];
    };
    std::vector<Sums> sums(rows);
    double values[16];
    int8_t table[16];
    for (int i = 0; i < 16; i++) values[i] = first_table[i];
    round_table(values, table);
    for (int round = 0; round < lloyd_rounds; round++) {
      CodeBook book;
      make_code_book(table, &book);
      parallel_for(context_, static_cast<int64_t>(rows), 1, [&](int64_t begin, int64_t end, int thread) {
        std::vector<float> &v = rows_[static_cast<size_t>(thread)];
        for (int64_t i = begin; i < end && !cancelled(context_); i++) {
          // Rows spread over the whole sample.
          const uint64_t r = static_cast<uint64_t>(i) * source_.rows / rows;
          Sums &sum = sums[static_cast<size_t>(i)];
          sum = Sums{};
          add_row(*search, book, r, v, column_scale, importance, sum.product, sum.square);
        }
      });
      if (cancelled(context_)) return fail(context_, AIRK_CANCELLED, "Cannot train: cancelled");
      double product[16] = {}, square[16] = {};
      for (const Sums &sum : sums) {
        for (int k = 0; k < 16; k++) {
          product[k] += sum.product[k];
          square[k] += sum.square[k];
        }
      }
      for (int k = 0; k < 16; k++) values[k] = square[k] > 0.0 ? product[k] / square[k] : table[k];
      round_table(values, table);
    }
    std::memcpy(parameters, table, 16);
    return AIRK_OK;
  }

  // Adds what a row's weights say of the values of their codes. Blocks with a large error are left out: outliers made them so.
  void add_row(const SearchKernels &search, const CodeBook &book, uint64_t r, std::vector<float> &v, const std::vector<float> &column_scale,
               const std::vector<float> &importance, double *product, double *square) const {
    load_row(source_, r, v.data());
    float largest = 0.0f;
    for (uint64_t c = 0; c < cols_; c++) largest = std::max(largest, std::fabs(v[c]));
    if (largest == 0.0f) return;
    const int exponent = std::ilogb(largest);
    const float once = std::ldexp(1.0f, -(exponent / 2)), twice = std::ldexp(1.0f, -(exponent - exponent / 2));
    for (uint64_t c = 0; c < cols_; c++) v[c] = v[c] * once * twice / column_scale[c];
    std::fill(v.begin() + static_cast<int64_t>(cols_), v.end(), 0.0f);
    std::vector<float> scale(blocks_), error(blocks_), values(blocks_ * block_cols);
    search.search(book, v.data(), importance.data(), static_cast<int64_t>(blocks_), scale.data(), error.data());
    search.assign(book, v.data(), scale.data(), static_cast<int64_t>(blocks_), values.data());
    double mean = 0.0;
    for (float e : error) mean += e;
    mean /= static_cast<double>(blocks_);
    for (uint64_t b = 0; b < blocks_; b++) {
      if (scale[b] == 0.0f || error[b] > 2.5 * mean) continue;
      for (uint64_t i = b * block_cols; i < (b + 1) * block_cols; i++) {
        const int k = book.index_of[static_cast<int>(values[i]) + 128];
        // Each row counts the same, whatever its magnitude.
        const double q = importance[i] / std::max(mean, 1e-30), s = scale[b];
        product[k] += q * s * v[i];
        square[k] += q * s * s;
      }
    }
  }

  airk_context *context_;
  const Source &source_;
  const uint64_t cols_, blocks_;
  std::vector<double> log_scale_;  // log2 of the column scale
  std::vector<std::vector<float>> rows_;  // one a thread
};

}  // namespace

airk_status train_q4o(airk_context *context, const Source &source, uint8_t *parameters) { return Trainer(context, source).run(parameters); }

}  // namespace airk
