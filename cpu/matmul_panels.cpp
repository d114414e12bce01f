// Matrix products of many tokens. Blocked after Goto: a panel of decoded weights stays in the second-level cache while all
// tokens pass it, so that decoding is paid once for up to max_pass_tokens tokens.
#include <algorithm>
#include <atomic>

#include "matmul.h"

namespace airk {
namespace {

constexpr uint64_t max_pass_tokens = 512;
constexpr uint64_t group_panel_bytes = 256 << 10;  // of decoded weights a thread holds

uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// One pass over the weights for up to max_pass_tokens tokens.
class Pass {
 public:
  Pass(const MatmulArguments &arguments, const Kernels &kernels, const TileKernel &tiles, uint64_t first_token, uint64_t tokens)
      : a_(arguments), w_(arguments.weight), kernels_(kernels), tiles_(tiles), first_token_(first_token), tokens_(tokens) {
    padded_cols_ = w_.blocks * block_cols;
    padded_tokens_ = round_up(tokens, static_cast<uint64_t>(tiles.token_tile));
    const uint64_t threads = static_cast<uint64_t>(thread_count(a_.context)), row_tile = static_cast<uint64_t>(tiles.row_tile);
    const uint64_t panel_row_bytes = panel_stride * static_cast<uint64_t>(tiles.element_bytes);
    const uint64_t most = std::max<uint64_t>(group_panel_bytes / panel_row_bytes / row_tile, 1) * row_tile;
    // Twice as many groups as threads at least, so that they end together.
    group_rows_ = std::min(most, round_up((w_.rows + 2 * threads - 1) / (2 * threads), row_tile));
    activation_bytes_ = round_up(padded_tokens_ * padded_cols_ * static_cast<uint64_t>(tiles.element_bytes), 64);
    scale_bytes_ = w_.format == Format::q4o ? round_up(w_.cols * sizeof(float), 64) : 0;
    panel_bytes_ = group_rows_ * panel_row_bytes;
    sum_bytes_ = round_up(group_rows_ * padded_tokens_ * sizeof(float), 64);
    // A thread first packs tiles of tokens, then multiplies groups of rows, in the same memory.
    thread_bytes_ = std::max(panel_bytes_ + sum_bytes_ + panel_cols * sizeof(float) + round_up(group_rows_ * (sizeof(float) + 2 * sizeof(uint64_t)), 64),
                             static_cast<uint64_t>(tiles.token_tile * panel_cols) * sizeof(float));
  }

  airk_status run() {
    const uint64_t threads = static_cast<uint64_t>(thread_count(a_.context));
    const std::size_t bytes = activation_bytes_ + scale_bytes_ + threads * thread_bytes_;
    const ScratchLabel label = {reinterpret_cast<uintptr_t>(a_.x), a_.x_stride, tokens_, w_.cols, static_cast<uint64_t>(w_.format),
                                reinterpret_cast<uintptr_t>(&tiles_), first_token_, 1};
    void *kept = a_.continues ? kept_scratch(a_.context, label, bytes) : nullptr;
    activations_ = static_cast<uint8_t *>(kept != nullptr ? kept : scratch(a_.context, bytes));
    if (activations_ == nullptr) return fail(a_.context, AIRK_OUT_OF_MEMORY, "Cannot matmul: no scratch memory for %llu tokens",
                                             static_cast<unsigned long long>(tokens_));
    float *column_scale = scale_bytes_ == 0 ? nullptr : reinterpret_cast<float *>(activations_ + activation_bytes_);
    threads_memory_ = activations_ + activation_bytes_ + scale_bytes_;
    if (kept == nullptr) {
      if (column_scale != nullptr) decode_column_scale(w_, column_scale);
      const int64_t token_tiles = static_cast<int64_t>(padded_tokens_) / tiles_.token_tile;
      parallel_for(a_.context, token_tiles, 1, [&](int64_t begin, int64_t end, int thread) {
        float *prepared = reinterpret_cast<float *>(threads_memory_ + static_cast<uint64_t>(thread) * thread_bytes_);
        for (int64_t tile = begin; tile < end; tile++) pack_token_tile(static_cast<uint64_t>(tile), column_scale, prepared);
      });
      keep_scratch(a_.context, label);
    }
    const int64_t groups = static_cast<int64_t>((w_.rows + group_rows_ - 1) / group_rows_);
    parallel_for(a_.context, groups, 1, [&](int64_t begin, int64_t end, int thread) {
      if (tiles_.begin != nullptr) tiles_.begin();
      for (int64_t group = begin; group < end; group++) {
        if (!multiply_group(static_cast<uint64_t>(group) * group_rows_, threads_memory_ + static_cast<uint64_t>(thread) * thread_bytes_)) corrupt_ = true;
      }
      if (tiles_.end != nullptr) tiles_.end();
    });
    return corrupt_ ? fail_outliers(a_.context, "matmul") : AIRK_OK;
  }

 private:
  // Packed activations are [panel of columns][token tile][column][token].
  uint8_t *packed(uint64_t col, uint64_t tile) const {
    const uint64_t cols = std::min<uint64_t>(panel_cols, padded_cols_ - col), tile_tokens = static_cast<uint64_t>(tiles_.token_tile);
    return activations_ + (col * padded_tokens_ + tile * tile_tokens * cols) * static_cast<uint64_t>(tiles_.element_bytes);
  }

  // prepared: [token_tile][panel_cols], a thread's own.
  void pack_token_tile(uint64_t tile, const float *column_scale, float *prepared) {
    const float *rows[64] = {};
    const uint64_t tile_tokens = static_cast<uint64_t>(tiles_.token_tile);
    for (uint64_t col = 0; col < padded_cols_; col += panel_cols) {
      const uint64_t cols = std::min<uint64_t>(panel_cols, padded_cols_ - col);
      for (uint64_t t = 0; t < tile_tokens; t++) {
        const uint64_t token = tile * tile_tokens + t;
        if (token >= tokens_) break;
        float *row = prepared + t * panel_cols;
        prepare_activations(w_, column_scale, a_.x + (first_token_ + token) * a_.x_stride, col, col + cols, row);
        rows[t] = row;
      }
      tiles_.pack_activations(rows, static_cast<int64_t>(cols), packed(col, tile));
    }
  }

  bool multiply_group(uint64_t row_begin, uint8_t *memory) {
    const uint64_t rows = std::min(group_rows_, w_.rows - row_begin), row_tile = static_cast<uint64_t>(tiles_.row_tile);
    uint8_t *panel = memory;
    float *sums = reinterpret_cast<float *>(memory + panel_bytes_);
    float *core = reinterpret_cast<float *>(memory + panel_bytes_ + sum_bytes_);
    uint64_t *outlier = reinterpret_cast<uint64_t *>(core + panel_cols), *outlier_end = outlier + group_rows_;
    float *row_scale = reinterpret_cast<float *>(outlier_end + group_rows_);
    const bool q4o = w_.format == Format::q4o;
    for (uint64_t r = 0; q4o && r < rows; r++) {
      row_scale[r] = from_bf16(w_.q4o.row_scale[row_begin + r]);
      if (!outliers_of_row(w_, row_begin + r, &outlier[r], &outlier_end[r])) return false;
    }
    std::fill(sums, sums + group_rows_ * padded_tokens_, 0.0f);
    const uint64_t panel_row_bytes = panel_stride * static_cast<uint64_t>(tiles_.element_bytes);
    for (uint64_t col = 0; col < padded_cols_; col += panel_cols) {
      const uint64_t cols = std::min<uint64_t>(panel_cols, padded_cols_ - col);
      for (uint64_t r = 0; r < rows; r++) {
        kernels_.decode(w_, row_begin + r, col / block_cols, (col + cols) / block_cols, core);
        if (q4o && !add_outliers(&outlier[r], outlier_end[r], col, cols, core)) return false;
        tiles_.pack_weights(core, static_cast<int64_t>(cols), panel + r * panel_row_bytes);
      }
      for (uint64_t tile = 0; tile < padded_tokens_ / static_cast<uint64_t>(tiles_.token_tile); tile++) {
        const uint8_t *tokens = packed(col, tile);
        for (uint64_t r = 0; r < rows; r += row_tile) {
          tiles_.multiply(panel + r * panel_row_bytes, tokens, static_cast<int64_t>(cols),
                          sums + r * padded_tokens_ + tile * static_cast<uint64_t>(tiles_.token_tile), static_cast<int64_t>(padded_tokens_));
        }
      }
    }
    tiles_.finish(sums, static_cast<int64_t>(padded_tokens_), static_cast<int64_t>(rows), static_cast<int64_t>(tokens_), q4o ? row_scale : nullptr,
                  a_.bias == nullptr ? nullptr : a_.bias + row_begin, a_.y + first_token_ * a_.y_stride + row_begin,
                  static_cast<int64_t>(a_.y_stride));
    return true;
  }

  // Adds a row's outliers that fall in [col, col + cols) and moves on behind them. Columns ascend, or the file is corrupt.
  bool add_outliers(uint64_t *next, uint64_t end, uint64_t col, uint64_t cols, float *core) const {
    for (; *next < end && w_.q4o.outlier_col[*next] < col + cols; ++*next) {
      const uint64_t at_col = w_.q4o.outlier_col[*next];
      if (at_col < col || at_col >= w_.cols) return false;
      core[at_col - col] += outlier_unit * from_f16(w_.q4o.outlier[*next]);
    }
    return *next == end || col + cols < padded_cols_;
  }

  const MatmulArguments &a_;
  const Weight &w_;
  const Kernels &kernels_;
  const TileKernel &tiles_;
  const uint64_t first_token_, tokens_;
  uint64_t padded_cols_, padded_tokens_, group_rows_;
  uint64_t activation_bytes_, scale_bytes_, panel_bytes_, sum_bytes_, thread_bytes_;
  uint8_t *activations_ = nullptr, *threads_memory_ = nullptr;
  std::atomic<bool> corrupt_{false};
};

}  // namespace

airk_status multiply_by_panels(const MatmulArguments &a) {
  const Isa isa = isa_of(a.context);
  const Kernels &kernels = *kernels_of(isa);
  const bool few = a.tokens <= static_cast<uint64_t>(kernels.few_exact_tiles->token_tile);
  const TileKernel *fast = a.fast ? fast_tiles_of(isa, a.tokens <= 16) : nullptr;
  const TileKernel &tiles = fast != nullptr ? *fast : few ? *kernels.few_exact_tiles : *kernels.exact_tiles;
  for (uint64_t first = 0; first < a.tokens; first += max_pass_tokens) {
    const airk_status status = Pass(a, kernels, tiles, first, std::min(max_pass_tokens, a.tokens - first)).run();
    if (status != AIRK_OK) return status;
  }
  return AIRK_OK;
}

}  // namespace airk
