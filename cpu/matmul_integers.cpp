// Matrix products of many tokens on integers. A group of rows is unpacked once and stays in the second-level cache, as does the tile of
// tokens that passes it; a tile of the product is summed over all columns in registers.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "matmul.h"

namespace airk {
namespace {

constexpr uint64_t max_pass_tokens = 512;
constexpr uint64_t group_panel_bytes = 256 << 10;  // of unpacked weights a thread holds

uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// One pass over the weights for up to max_pass_tokens tokens.
class IntegerPass {
 public:
  IntegerPass(const MatmulArguments &arguments, const IntegerTiles &tiles, uint64_t first_token, uint64_t tokens)
      : a_(arguments), w_(arguments.weight), tiles_(tiles), first_token_(first_token), tokens_(tokens) {
    tile_tokens_ = static_cast<uint64_t>(tiles.token_tile);
    tile_rows_ = static_cast<uint64_t>(tiles.row_tile);
    padded_cols_ = w_.blocks * block_cols;
    token_tiles_ = (tokens + tile_tokens_ - 1) / tile_tokens_;
    token_tile_bytes_ = round_up(tiles.packed_bytes(w_.blocks), 64);
    row_tile_bytes_ = round_up(tiles.panel_bytes(w_.blocks), 64);
    const uint64_t threads = static_cast<uint64_t>(thread_count(a_.context));
    const uint64_t most = std::max<uint64_t>(group_panel_bytes / row_tile_bytes_, 1) * tile_rows_;
    // Several groups a thread, so that they end together.
    group_rows_ = std::min(most, round_up((w_.rows + 4 * threads - 1) / (4 * threads), tile_rows_));
    scale_bytes_ = w_.format == Format::q4o ? round_up(w_.cols * sizeof(float), 64) : 0;
    sum_floats_ = tile_rows_ * tile_tokens_;
    // A thread first packs tokens, then multiplies groups of rows, in the same memory.
    thread_bytes_ = round_up(std::max(group_rows_ / tile_rows_ * row_tile_bytes_ + sum_floats_ * sizeof(float), padded_cols_ * sizeof(float)), 64);
  }

  airk_status run() {
    const uint64_t threads = static_cast<uint64_t>(thread_count(a_.context)), activation_bytes = token_tiles_ * token_tile_bytes_;
    const std::size_t bytes = activation_bytes + scale_bytes_ + threads * thread_bytes_;
    const ScratchLabel label = {reinterpret_cast<uintptr_t>(a_.x), a_.x_stride, tokens_, w_.cols, static_cast<uint64_t>(w_.format),
                                reinterpret_cast<uintptr_t>(&tiles_), first_token_, 2};
    void *kept = a_.continues ? kept_scratch(a_.context, label, bytes) : nullptr;
    activations_ = static_cast<uint8_t *>(kept != nullptr ? kept : scratch(a_.context, bytes));
    if (activations_ == nullptr) return fail(a_.context, AIRK_OUT_OF_MEMORY, "Cannot matmul: no scratch memory for %llu tokens",
                                             static_cast<unsigned long long>(tokens_));
    float *column_scale = scale_bytes_ == 0 ? nullptr : reinterpret_cast<float *>(activations_ + activation_bytes);
    threads_memory_ = activations_ + activation_bytes + scale_bytes_;
    if (kept == nullptr) {
      if (column_scale != nullptr) decode_column_scale(w_, column_scale);
      parallel_for(a_.context, static_cast<int64_t>(token_tiles_), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t tile = begin; tile < end; tile++) pack_tile(static_cast<uint64_t>(tile), column_scale, reinterpret_cast<float *>(memory_of(thread)));
      });
      keep_scratch(a_.context, label);
    }
    const int64_t groups = static_cast<int64_t>((w_.rows + group_rows_ - 1) / group_rows_);
    parallel_for(a_.context, groups, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t group = begin; group < end; group++) {
        const uint64_t row = static_cast<uint64_t>(group) * group_rows_;
        if (!multiply_group(row, std::min(row + group_rows_, w_.rows), memory_of(thread))) corrupt_ = true;
      }
    });
    return corrupt_ ? fail_outliers(a_.context, "matmul") : AIRK_OK;
  }

 private:
  uint8_t *memory_of(int thread) const { return threads_memory_ + static_cast<uint64_t>(thread) * thread_bytes_; }

  // prepared: [padded columns], a thread's own.
  void pack_tile(uint64_t tile, const float *column_scale, float *prepared) {
    uint8_t *packed = activations_ + tile * token_tile_bytes_;
    const uint64_t first = tile * tile_tokens_, count = std::min(tile_tokens_, tokens_ - first);
    if (count < tile_tokens_) std::memset(packed, 0, token_tile_bytes_);
    for (uint64_t t = 0; t < count; t++) {
      prepare_activations(w_, column_scale, a_.x + (first_token_ + first + t) * a_.x_stride, 0, padded_cols_, prepared);
      tiles_.pack(prepared, w_.blocks, static_cast<int>(t), packed);
    }
  }

  bool multiply_group(uint64_t row_begin, uint64_t row_end, uint8_t *panel) {
    float *sums = reinterpret_cast<float *>(panel + group_rows_ / tile_rows_ * row_tile_bytes_);
    for (uint64_t row = row_begin; row < row_end; row += tile_rows_)
      tiles_.unpack(w_, row, std::min(row + tile_rows_, row_end), panel + (row - row_begin) / tile_rows_ * row_tile_bytes_);
    for (uint64_t tile = 0; tile < token_tiles_; tile++) {
      const uint8_t *packed = activations_ + tile * token_tile_bytes_;
      for (uint64_t row = row_begin; row < row_end; row += tile_rows_) {
        tiles_.multiply(panel + (row - row_begin) / tile_rows_ * row_tile_bytes_, packed, w_.blocks, sums);
        for (uint64_t r = row; r < std::min(row + tile_rows_, row_end); r++) {
          if (!finish_row(r, tile, packed, sums + (r - row) * tile_tokens_)) return false;
        }
      }
    }
    return true;
  }

  // Adds a row's outliers to its sums and writes y. Returns false where the outlier sections are corrupt.
  bool finish_row(uint64_t row, uint64_t tile, const uint8_t *packed, float *sums) const {
    float scale = 1.0f;
    if (w_.format == Format::q4o) {
      uint64_t begin, end;
      if (!outliers_of_row(w_, row, &begin, &end)) return false;
      for (uint64_t i = begin; i < end; i++) {
        if (w_.q4o.outlier_col[i] >= w_.cols) return false;
        tiles_.add_column(packed, w_.q4o.outlier_col[i], outlier_unit * from_f16(w_.q4o.outlier[i]), sums);
      }
      scale = from_bf16(w_.q4o.row_scale[row]);
    }
    const float bias = a_.bias == nullptr ? 0.0f : a_.bias[row];
    const uint64_t first = tile * tile_tokens_, count = std::min(tile_tokens_, tokens_ - first);
    float *y = a_.y + (first_token_ + first) * a_.y_stride + row;
    for (uint64_t t = 0; t < count; t++) y[t * a_.y_stride] = sums[t] * scale + bias;
    return true;
  }

  const MatmulArguments &a_;
  const Weight &w_;
  const IntegerTiles &tiles_;
  const uint64_t first_token_, tokens_;
  uint64_t tile_tokens_, tile_rows_, padded_cols_, token_tiles_, token_tile_bytes_, row_tile_bytes_, group_rows_;
  uint64_t scale_bytes_, sum_floats_, thread_bytes_;
  uint8_t *activations_ = nullptr, *threads_memory_ = nullptr;
  std::atomic<bool> corrupt_{false};
};

}  // namespace

airk_status multiply_by_integers(const MatmulArguments &a, const IntegerTiles &tiles) {
  for (uint64_t first = 0; first < a.tokens; first += max_pass_tokens) {
    const airk_status status = IntegerPass(a, tiles, first, std::min(max_pass_tokens, a.tokens - first)).run();
    if (status != AIRK_OK) return status;
  }
  return AIRK_OK;
}

}  // namespace airk
