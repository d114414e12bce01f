// The inner loops of the matrix operations, one table of functions for each instruction set.
//
// All of them work on "core" weights: what a format stores without q4o's row scale, column scale and outliers. The column scale is
// multiplied into the activations once, the row scale into the finished sums, and the outliers are added by sparse_rows, so that
// no dense loop knows about them. For other formats core weights are the weights.
#pragma once

#include <cstdint>

#include "formats.h"
#include "search_kernels.h"

namespace airk {

constexpr int max_dot_tokens = 8;  // tokens of one call of dot
constexpr int64_t panel_cols = 512;  // columns of a decoded panel; a row of it is panel_stride elements apart
constexpr int64_t panel_stride = panel_cols + 32;  // not a power of two, or the rows of a tile would share cache sets

// The rows of activations that one call multiplies. Each is padded with zeros to a multiple of 32 columns.
struct Activations {
  const float *row[max_dot_tokens];
};

// How C [rows][ldc tokens] = A panel [rows][panel_stride] * B panel [token tile][k][token_tile] is computed in tiles.
struct TileKernel {
  int row_tile, token_tile;
  int element_bytes;  // of both panels: 4 for float32, 2 for bf16
  // Called on a thread before and after its tiles; nullptr where nothing is to be set up.
  void (*begin)();
  void (*end)();
  // Writes one row of an A panel from core weights of `cols` columns (a multiple of 32).
  void (*pack_weights)(const float *core, int64_t cols, void *panel_row);
  // Writes a B panel of one token tile: rows of x [cols], missing ones nullptr; cols is a multiple of 32.
  void (*pack_activations)(const float *const *x, int64_t cols, void *panel);
  // One tile: c += a * b over k columns.
  void (*multiply)(const void *a, const void *b, int64_t k, float *c, int64_t ldc);
  // y[t * y_stride + r] = c[r * ldc + t] * scale[r] + bias[r]; scale, bias may be nullptr.
  void (*finish)(const float *c, int64_t ldc, int64_t rows, int64_t tokens, const float *scale, const float *bias, float *y, int64_t y_stride);
};

struct Kernels {
  // out [(block_end - block_begin) * 32] = core weights of a row; zero beyond the last column.
  void (*decode)(const Weight &weight, uint64_t row, uint64_t block_begin, uint64_t block_end, float *out);
  // sums[t * sum_stride + r - row_begin] = core dot products in float32 for rows [row_begin, row_end), t < tokens <= max_dot_tokens.
  void (*dot)(const Weight &weight, uint64_t row_begin, uint64_t row_end, const Activations &x, int tokens, float *sums, uint64_t sum_stride);
  // sums[r] = sum of value[i] * x[col[i]] over start[r] <= i < start[r + 1], r < rows. Returns false where a column is out of range.
  bool (*sparse_rows)(const uint16_t *col, const uint16_t *value, const uint64_t *start, uint64_t rows, uint64_t cols, const float *x, float *sums);
  // Adds value[i] * x[col[i]] of one row for max_dot_tokens tokens, side by side: x [cols][max_dot_tokens], sums [max_dot_tokens].
  bool (*sparse_dots)(const uint16_t *col, const uint16_t *value, uint64_t count, uint64_t cols, const float *x, float *sums);
  const TileKernel *exact_tiles;      // float32
  const TileKernel *few_exact_tiles;  // float32, half as many tokens a tile
  // Reads memory, a multiple of 512 bytes, as fast as one thread can; returns something that depends on all of it.
  uint64_t (*read)(const uint8_t *from, uint64_t bytes);
  // Multiplies and adds in registers; returns the floating-point operations done.
  double (*peak)(int64_t repeats);
  SearchKernels search;  // of the q4o quantizer
};

// The fast dot products of q8 and q4o: weights stay integers, activations become integers with a scale a block of 32: of 8 bits with
// AVX-512, of 16 with AVX2, and with AMX for more than two tokens.
struct FastKernels {
  // Bytes of the packed activations of all tokens.
  uint64_t (*packed_bytes)(const Weight &weight, int tokens);
  // Packs one token's activations, padded with zeros to [blocks * 32]; `packed` was cleared before the first.
  void (*pack)(const Weight &weight, const float *x, int token, void *packed);
  // As Kernels::dot.
  void (*dot)(const Weight &weight, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride);
};

// Products of many tokens on integers, for q8 and q4o: weights stay integers, activations become 8-bit integers with a scale a block of 32.
struct IntegerTiles {
  int row_tile, token_tile;
  // Bytes of a packed tile of tokens.
  uint64_t (*packed_bytes)(uint64_t blocks);
  // Packs one token's activations, padded with zeros to [blocks * 32], into its place in a tile.
  void (*pack)(const float *x, uint64_t blocks, int token, void *packed);
  // Bytes of an unpacked tile of rows.
  uint64_t (*panel_bytes)(uint64_t blocks);
  // Unpacks rows [row_begin, row_end), row_tile of them at most.
  void (*unpack)(const Weight &weight, uint64_t row_begin, uint64_t row_end, void *panel);
  // sums [row_tile][token_tile] = core dot products.
  void (*multiply)(const void *panel, const void *packed, uint64_t blocks, float *sums);
  // sums [token_tile] += weight * the activations of one column.
  void (*add_column)(const void *packed, uint64_t col, float weight, float *sums);
};

const Kernels *kernels_portable();
const Kernels *kernels_avx2();
const Kernels *kernels_avx512();

const FastKernels *fast_kernels_avx2();
const FastKernels *fast_kernels_avx512();
const FastKernels *fast_kernels_amx();
const TileKernel *bf16_tiles_amx(bool few_tokens);
double peak_amx(int64_t repeats);
const IntegerTiles *integer_tiles_avx512(bool few_tokens);
double peak_integers_avx512(int64_t repeats);

// Return the best that an instruction set has; nullptr where it has nothing faster than the exact kernels.
const Kernels *kernels_of(Isa isa);
const FastKernels *fast_kernels_of(Isa isa, Format format, uint64_t tokens);
const TileKernel *fast_tiles_of(Isa isa, bool few_tokens);
const IntegerTiles *integer_tiles_of(Isa isa, Format format, bool few_tokens);

}  // namespace airk
