// The q4o quantizer: a searched scale a block of 32, and outliers chosen by price.
//
// Squared errors are those of the weights themselves: v = w / column_scale is quantized, and an error of v counts column_scale^2.
// Rows are brought to a magnitude near 1 by a power of two, so that squares neither overflow nor vanish.
#include "quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats.h"

namespace airk {
namespace {

constexpr int most_outliers_a_block = 4;
// An outlier costs 32 bits, and at high rate a bit a weight divides the squared error by 4: its price is 32 * ln(4) times the mean.
constexpr double outlier_price = 44.4;

struct Plan {
  const CodeBook *book;
  const SearchKernels *search;
  std::vector<float> column_scale, importance;  // [blocks * 32], importance 0 beyond cols
  uint64_t blocks;
};

// One row in the quantizer's terms.
struct Row {
  std::vector<float> weights, v, q, values;  // [blocks * 32]
  int exponent;
  explicit Row(uint64_t blocks) : weights(blocks * 32), v(blocks * 32), q(blocks * 32), values(blocks * 32), exponent(0) {}

  // Returns the first column that is not finite, or cols.
  uint64_t load(const Source &source, const Plan &plan, uint64_t row) {
    const uint64_t bad = load_row(source, row, weights.data());
    if (bad != source.cols) return bad;
    float largest = 0.0f;
    for (uint64_t c = 0; c < source.cols; c++) largest = std::max(largest, std::fabs(weights[c]));
    exponent = largest > 0.0f ? std::ilogb(largest) : 0;
    // Two steps, since 2^-exponent alone may be beyond float32.
    const float once = std::ldexp(1.0f, -(exponent / 2)), twice = std::ldexp(1.0f, -(exponent - exponent / 2));
    for (uint64_t c = 0; c < source.cols; c++) v[c] = weights[c] * once * twice / plan.column_scale[c];
    q = plan.importance;
    return bad;
  }
};

// What removing a block's largest elements would bring.
struct Removal {
  double gain;  // squared error saved, less the price
  uint32_t row, block;
  int count;
  uint8_t element[most_outliers_a_block];
  float scale;
};

struct Group {
  std::vector<uint16_t> col, value;
  std::vector<uint16_t> start;
};

// Tries to take elements out of one block, one after the other, as long as it pays.
bool try_removals(const Plan &plan, const float *v, const float *importance, double unit, double price, float error, Removal *best) {
  float q[32];
  std::memcpy(q, importance, sizeof q);
  best->count = 0;
  best->gain = 0.0;
  uint8_t element[most_outliers_a_block];
  for (int count = 1; count <= most_outliers_a_block; count++) {
    if (error * unit - count * price <= best->gain) break;  // not even a perfect block would pay
    int largest = 0;
    for (int i = 1; i < 32; i++)
      if (std::fabs(v[i]) * (q[i] > 0.0f) > std::fabs(v[largest]) * (q[largest] > 0.0f)) largest = i;
    if (q[largest] == 0.0f) break;
    q[largest] = 0.0f;
    element[count - 1] = static_cast<uint8_t>(largest);
    float scale, left;
    plan.search->search(*plan.book, v, q, 1, &scale, &left);
    const double gain = (error - left) * unit - count * price;
    if (gain > best->gain) {
      best->gain = gain;
      best->count = count;
      best->scale = scale;
      std::copy(element, element + count, best->element);
    }
  }
  return best->count > 0;
}

class Quantizer {
 public:
  Quantizer(QuantizeArguments *arguments, const CodeBook &book)
      : a_(*arguments), source_(arguments->source), blocks_((source_.cols + block_cols - 1) / block_cols) {
    plan_.book = &book;
    plan_.search = search_kernels_of(isa_of(a_.context));
    plan_.blocks = blocks_;
    plan_.column_scale.assign(blocks_ * block_cols, 1.0f);
    plan_.importance.assign(blocks_ * block_cols, 0.0f);
    const uint8_t *scale = a_.parameters + 16;
    for (uint64_t c = 0; c < source_.cols; c++) {
      plan_.column_scale[c] = column_scale_value(scale[c]);
      plan_.importance[c] = plan_.column_scale[c] * plan_.column_scale[c];
    }
    for (int i = 0; i < thread_count(a_.context); i++) rows_.emplace_back(blocks_);
    scale_.resize(source_.rows * blocks_);
    error_.resize(source_.rows * blocks_);
    row_error_.resize(source_.rows);
    row_weight_.resize(source_.rows);
    groups_.resize((source_.rows + outlier_group - 1) / outlier_group);
  }

  airk_status run() {
    airk_status status = search_all();
    if (status == AIRK_OK) status = write_dense();
    if (status == AIRK_OK) status = write_outliers();
    return status;
  }

 private:
  airk_status search_all() {
    std::atomic<uint64_t> bad{~uint64_t{0}};
    parallel_for(a_.context, static_cast<int64_t>(source_.rows), 4, [&](int64_t begin, int64_t end, int thread) {
      Row &row = rows_[static_cast<size_t>(thread)];
      for (uint64_t r = static_cast<uint64_t>(begin); r < static_cast<uint64_t>(end) && !cancelled(a_.context); r++) {
        const uint64_t col = row.load(source_, plan_, r);
        if (col != source_.cols) {
          const uint64_t position = r * source_.cols + col;
          for (uint64_t known = bad; position < known && !bad.compare_exchange_weak(known, position);) {
          }
          continue;
        }
        plan_.search->search(*plan_.book, row.v.data(), row.q.data(), static_cast<int64_t>(blocks_), &scale_[r * blocks_], &error_[r * blocks_]);
        double error = 0.0, weight = 0.0;
        for (uint64_t b = 0; b < blocks_; b++) error += error_[r * blocks_ + b];
        for (uint64_t c = 0; c < source_.cols; c++) weight += static_cast<double>(row.weights[c]) * row.weights[c];
        row_error_[r] = std::ldexp(error, 2 * row.exponent);
        row_weight_[r] = weight;
      }
    });
    if (cancelled(a_.context)) return fail(a_.context, AIRK_CANCELLED, "Cannot quantize: cancelled");
    if (bad != ~uint64_t{0}) return fail_not_finite(a_.context, "quantize", bad / source_.cols, bad % source_.cols);
    double error = 0.0;
    for (double e : row_error_) error += e;
    price_ = outlier_price * error / (static_cast<double>(source_.rows) * static_cast<double>(source_.cols));
    return AIRK_OK;
  }

  airk_status write_dense() {
    Layout layout;
    layout_of(Format::q4o, source_.rows, source_.cols, 0, &layout);
    if (layout.bytes > a_.extent_capacity) return fail_capacity(layout.bytes);
    std::memset(a_.extent, 0, layout.bytes);
    std::memcpy(a_.extent + layout.code_table, a_.parameters, 16);
    std::memcpy(a_.extent + layout.column_scale, a_.parameters + 16, source_.cols);
    parallel_for(a_.context, static_cast<int64_t>(groups_.size()), 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t g = begin; g < end && !cancelled(a_.context); g++) write_group(static_cast<uint64_t>(g), layout, rows_[static_cast<size_t>(thread)]);
    });
    if (cancelled(a_.context)) return fail(a_.context, AIRK_CANCELLED, "Cannot quantize: cancelled");
    return AIRK_OK;
  }

  void write_group(uint64_t g, const Layout &layout, Row &row) {
    const uint64_t first = g * outlier_group, last = std::min(first + outlier_group, source_.rows);
    std::vector<Removal> removals;
    for (uint64_t r = first; r < last; r++) {
      bool loaded = false;
      for (uint64_t b = 0; b < blocks_; b++) {
        const float error = error_[r * blocks_ + b];
        if (!loaded) {
          row.load(source_, plan_, r);
          loaded = true;
        }
        const double unit = std::ldexp(1.0, 2 * row.exponent);
        if (error * unit <= price_) continue;
        Removal removal = {};
        removal.row = static_cast<uint32_t>(r - first);
        removal.block = static_cast<uint32_t>(b);
        if (try_removals(plan_, &row.v[b * block_cols], &plan_.importance[b * block_cols], unit, price_, error, &removal)) removals.push_back(removal);
      }
    }
    // Where the cap leaves no room for all, the best for their storage stay.
    std::stable_sort(removals.begin(), removals.end(), [](const Removal &a, const Removal &b) { return a.gain * b.count > b.gain * a.count; });
    uint64_t room = outlier_cap(last - first, source_.cols);
    size_t kept = 0;
    for (const Removal &removal : removals) {
      if (static_cast<uint64_t>(removal.count) > room) continue;
      room -= static_cast<uint64_t>(removal.count);
      removals[kept++] = removal;
    }
    removals.resize(kept);
    std::sort(removals.begin(), removals.end(), [](const Removal &a, const Removal &b) { return a.row != b.row ? a.row < b.row : a.block < b.block; });
    size_t next = 0;
    Group &group = groups_[g];
    for (uint64_t r = first; r < last; r++) {
      group.start.push_back(static_cast<uint16_t>(group.col.size()));
      row.load(source_, plan_, r);
      std::vector<uint64_t> outlier_cols;
      for (; next < removals.size() && removals[next].row == r - first; next++) {
        const Removal &removal = removals[next];
        scale_[r * blocks_ + removal.block] = removal.scale;
        for (int i = 0; i < removal.count; i++) {
          outlier_cols.push_back(uint64_t{removal.block} * block_cols + removal.element[i]);
          row.q[outlier_cols.back()] = 0.0f;
        }
      }
      std::sort(outlier_cols.begin(), outlier_cols.end());
      write_row(r, layout, row, outlier_cols, &group);
    }
  }

  void write_row(uint64_t r, const Layout &layout, Row &row, const std::vector<uint64_t> &outlier_cols, Group *group) {
    float *scale = &scale_[r * blocks_];
    float largest = 0.0f;
    for (uint64_t b = 0; b < blocks_; b++) largest = std::max(largest, std::fabs(scale[b]));
    // The unit of block scales, rounded up so that none exceeds 127; in steps, as the row's power of two may be beyond float32.
    const uint32_t unit_bits = bits_of(largest / 127.0f) + 0xffffu;
    float unit = float_of(unit_bits & 0xffff0000u);
    const uint16_t row_scale = to_bf16(std::ldexp(unit, row.exponent));
    const float scale_back = std::ldexp(from_bf16(row_scale), -row.exponent);
    unit = scale_back;  // differs where the row's scale is a subnormal number
    std::memcpy(a_.extent + layout.row_scale + r * 2, &row_scale, 2);
    int8_t *block_scale = reinterpret_cast<int8_t *>(a_.extent + layout.scale) + r * blocks_;
    for (uint64_t b = 0; b < blocks_; b++) {
      int chosen = 0;
      if (unit > 0.0f) {
        // The nearest whole scale is not always the best one, since its codes are chosen anew.
        const float nearest = std::nearbyint(scale[b] / unit);
        float candidates[4], errors[4];
        for (int i = 0; i < 3; i++) candidates[i] = std::clamp(nearest + static_cast<float>(i - 1), -127.0f, 127.0f) * unit;
        candidates[3] = 0.0f;
        plan_.search->errors(*plan_.book, &row.v[b * block_cols], &row.q[b * block_cols], candidates, 4, errors);
        const int best = static_cast<int>(std::min_element(errors, errors + 4) - errors);
        chosen = static_cast<int>(std::nearbyint(candidates[best] / unit));
      }
      block_scale[b] = static_cast<int8_t>(chosen);
      scale[b] = static_cast<float>(chosen) * unit;
    }
    plan_.search->assign(*plan_.book, row.v.data(), scale, static_cast<int64_t>(blocks_), row.values.data());
    uint8_t *code = a_.extent + layout.code + r * blocks_ * 16;
    for (uint64_t b = 0; b < blocks_; b++) {
      const float *values = &row.values[b * block_cols];
      for (int i = 0; i < 16; i++) {
        const uint8_t low = plan_.book->index_of[static_cast<int>(values[i]) + 128], high = plan_.book->index_of[static_cast<int>(values[i + 16]) + 128];
        code[b * 16 + static_cast<uint64_t>(i)] = static_cast<uint8_t>(low | high << 4);
      }
      for (int i = 0; i < 32; i++) row.values[b * block_cols + static_cast<uint64_t>(i)] *= static_cast<float>(block_scale[b]);
    }
    for (uint64_t c : outlier_cols) {
      const float wanted = unit > 0.0f ? (row.v[c] / unit - row.values[c]) / outlier_unit : 0.0f;
      const uint16_t stored = to_f16(std::clamp(wanted, -65504.0f, 65504.0f));
      group->col.push_back(static_cast<uint16_t>(c));
      group->value.push_back(stored);
      row.values[c] += outlier_unit * from_f16(stored);
    }
    double error = 0.0;
    const float decoded_scale = from_bf16(row_scale);
    for (uint64_t c = 0; c < source_.cols; c++) {
      const double difference = static_cast<double>(row.weights[c]) - static_cast<double>(decoded_scale * plan_.column_scale[c] * row.values[c]);
      error += difference * difference;
    }
    row_error_[r] = error;
  }

  airk_status write_outliers() {
    uint64_t outliers = 0;
    for (const Group &group : groups_) outliers += group.col.size();
    Layout layout;
    if (outliers > UINT32_MAX || !layout_of(Format::q4o, source_.rows, source_.cols, outliers, &layout)) {
      return fail(a_.context, AIRK_INVALID, "Cannot quantize: %llu outliers are too many for one extent", static_cast<unsigned long long>(outliers));
    }
    if (layout.bytes > a_.extent_capacity) return fail_capacity(layout.bytes);
    // What write_dense cleared ends with outlier_start.
    const uint64_t cleared = layout.outlier_start + source_.rows * 2;
    std::memset(a_.extent + cleared, 0, layout.bytes - cleared);
    uint64_t base = 0;
    for (uint64_t g = 0; g < groups_.size(); g++) {
      const Group &group = groups_[g];
      const uint32_t base32 = static_cast<uint32_t>(base);
      std::memcpy(a_.extent + layout.outlier_base + g * 4, &base32, 4);
      std::memcpy(a_.extent + layout.outlier_start + g * outlier_group * 2, group.start.data(), group.start.size() * 2);
      if (!group.col.empty()) {
        std::memcpy(a_.extent + layout.outlier_col + base * 2, group.col.data(), group.col.size() * 2);
        std::memcpy(a_.extent + layout.outlier + base * 2, group.value.data(), group.value.size() * 2);
      }
      base += group.col.size();
    }
    a_.extent_bytes = layout.bytes;
    a_.outliers = outliers;
    a_.squared_weights = a_.squared_errors = 0.0;
    for (double w : row_weight_) a_.squared_weights += w;
    for (double e : row_error_) a_.squared_errors += e;
    return AIRK_OK;
  }

  airk_status fail_capacity(uint64_t required) {
    return fail(a_.context, AIRK_INVALID, "Cannot quantize: the extent may have %llu bytes, required %llu",
                static_cast<unsigned long long>(a_.extent_capacity), static_cast<unsigned long long>(required));
  }

  QuantizeArguments &a_;
  const Source &source_;
  const uint64_t blocks_;
  Plan plan_;
  std::vector<Row> rows_;  // one a thread
  std::vector<float> scale_, error_;  // [rows][blocks]
  std::vector<double> row_error_, row_weight_;
  std::vector<Group> groups_;
  double price_ = 0.0;
};

}  // namespace

bool make_code_book(const int8_t *table, CodeBook *book) {
  *book = CodeBook{};
  for (int i = 0; i < 16; i++) {
    if (i > 0 && table[i] <= table[i - 1]) return false;
    book->value[i] = table[i];
    book->index_of[table[i] + 128] = static_cast<uint8_t>(i);
    book->largest = std::max(book->largest, std::fabs(book->value[i]));
  }
  for (int i = 0; i < 15; i++) book->threshold[i] = 0.5f * (book->value[i] + book->value[i + 1]);
  book->multipliers = 22;
  for (int i = 0; i < book->multipliers; i++) book->multiplier[i] = 0.70f + 0.02f * static_cast<float>(i);
  return true;
}

uint64_t outlier_cap(uint64_t group_rows, uint64_t cols) { return std::min<uint64_t>(group_rows * cols / 200, 65535); }

airk_status quantize_q4o(QuantizeArguments *arguments) {
  CodeBook book;
  int8_t table[16];
  std::memcpy(table, arguments->parameters, 16);
  if (!make_code_book(table, &book)) return fail(arguments->context, AIRK_INVALID, "Cannot quantize: the code table does not ascend");
  return Quantizer(arguments, book).run();
}

}  // namespace airk
