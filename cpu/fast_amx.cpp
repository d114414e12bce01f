// Fast dot products of q8 and q4o for several tokens on AMX: bytes times bytes, each block of 32 columns one tile product.
//
// A tile of weights is 16 rows of one block. A tile of activations holds the high and the low bytes of eight tokens' 16-bit integers
// side by side, so that one product serves all of them; its sums become float32 with the block's scales before the next.
#include <immintrin.h>

#include <cstring>

#include "kernels.h"

// GCC 12 takes the undefined upper halves inside its own intrinsics for uninitialized variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace airk {
namespace {

constexpr int tile_rows = 16;
constexpr uint64_t quad_blocks = 4, run_quads = 4;  // blocks unpacked at once; a run of 16 blocks fills a vector with scales
constexpr float largest_integer = 32639.0f;         // 256 * 127 + 127

struct PackedBlock {
  float scale[2 * max_dot_tokens];       // of the high bytes of each token, then of the low ones
  int8_t x[8][2 * max_dot_tokens][4];    // [column / 4][byte of a token][column % 4], as a tile product takes it
};

uint64_t padded_blocks(const Weight &w) { return (w.blocks + quad_blocks - 1) / quad_blocks * quad_blocks; }

uint64_t packed_bytes(const Weight &w, int) { return padded_blocks(w) * sizeof(PackedBlock); }

void pack(const Weight &w, const float *x, int token, void *packed) {
  PackedBlock *blocks = static_cast<PackedBlock *>(packed);
  for (uint64_t b = 0; b < w.blocks; b++) {
    const __m512 v[2] = {_mm512_loadu_ps(x + b * block_cols), _mm512_loadu_ps(x + b * block_cols + 16)};
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1])));
    // Blocks too small to divide by vanish; their products would be below float32's normal range too.
    if (!(largest > 1e-30f)) continue;
    const float inverse = largest_integer / largest, scale = largest / largest_integer;
    blocks[b].scale[token] = 256.0f * scale;
    blocks[b].scale[max_dot_tokens + token] = scale;
    for (int half = 0; half < 2; half++) {
      const __m512i integer = _mm512_cvtps_epi32(_mm512_mul_ps(v[half], _mm512_set1_ps(inverse)));
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(integer, _mm512_set1_epi32(128)), 8);
      const __m512i low = _mm512_sub_epi32(integer, _mm512_slli_epi32(high, 8));
      alignas(16) uint32_t high_bytes[4], low_bytes[4];
      _mm_store_si128(reinterpret_cast<__m128i *>(high_bytes), _mm512_cvtepi32_epi8(high));
      _mm_store_si128(reinterpret_cast<__m128i *>(low_bytes), _mm512_cvtepi32_epi8(low));
      for (int i = 0; i < 4; i++) {
        std::memcpy(blocks[b].x[4 * half + i][token], &high_bytes[i], 4);
        std::memcpy(blocks[b].x[4 * half + i][max_dot_tokens + token], &low_bytes[i], 4);
      }
    }
  }
}

// Rows of a format as signed bytes, four blocks (128 bytes) at a time.
struct Q4oRows {
  static constexpr uint64_t block_bytes = 16;
  const uint8_t *code;
  const int8_t *scale;
  __m512i table;
  explicit Q4oRows(const Weight &w)
      : code(w.q4o.code),
        scale(w.q4o.block_scale),
        table(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w.q4o.code_table)))) {}
  inline __attribute__((always_inline)) void unpack(const uint8_t *from, uint64_t bytes, int8_t *to) const {
    const __m512i packed = bytes >= 64 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8((uint64_t{1} << bytes) - 1, from);
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(packed, mask));
    const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask));
    // Blocks 0 and 1, then 2 and 3: the 16 bytes of a block's low nibbles and the 16 of its high ones become neighbours.
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(to + 64, _mm512_permutex2var_epi64(low, second, high));
  }
  inline __m512 scales(uint64_t index, __mmask16 live) const {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(live, scale + index)));
  }
};

struct Q8Rows {
  static constexpr uint64_t block_bytes = 32;
  const uint8_t *code;
  const uint16_t *scale;
  explicit Q8Rows(const Weight &w) : code(reinterpret_cast<const uint8_t *>(w.q8.code)), scale(w.q8.scale) {}
  inline __attribute__((always_inline)) void unpack(const uint8_t *from, uint64_t bytes, int8_t *to) const {
    for (uint64_t i = 0; i < 128; i += 64) {
      const uint64_t left = bytes > i ? bytes - i : 0;
      const __m512i part = left >= 64 ? _mm512_loadu_si512(from + i) : _mm512_maskz_loadu_epi8((uint64_t{1} << left) - 1, from + i);
      _mm512_storeu_si512(to + i, part);
    }
  }
  inline __m512 scales(uint64_t index, __mmask16 live) const {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(live, scale + index));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
};

// Tiles 0 to 3 hold sums, 4 and 5 weights, 6 and 7 activations.
void configure() {
  struct alignas(64) {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {};
  config.palette = 1;
  for (int i = 0; i < 8; i++) {
    config.row_bytes[i] = i == 4 || i == 5 ? 32 : 64;
    config.rows[i] = i >= 6 ? 8 : tile_rows;
  }
  // GCC's intrinsic tells the compiler about the first eight bytes that are read alone.
  __asm__ volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}

// 16 rows times all tokens. While tiles multiply four blocks, the vector units finish the four before and unpack the four behind.
template <class Rows>
class TileRows {
 public:
  TileRows(const Weight &w, const Rows &rows, uint64_t row, uint64_t live_rows, const PackedBlock *x)
      : w_(w), rows_(rows), row_(row), live_rows_(live_rows), row_bytes_(w.blocks * Rows::block_bytes), x_(x) {
    std::memset(weights_, 0, sizeof weights_);
    std::memset(scale_, 0, sizeof scale_);
  }

  inline __attribute__((always_inline)) void run(int tokens, float *sums, uint64_t sum_stride) {
    __m512 acc[tile_rows];
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; r++) acc[r] = _mm512_setzero_ps();
    const uint64_t quads = (w_.blocks + quad_blocks - 1) / quad_blocks;
    unpack(0);
    for (uint64_t quad = 0; quad < quads; quad++) {
      multiply(quad);
      if (quad > 0) accumulate(quad - 1, acc);
      if (quad + 1 < quads) unpack(quad + 1);
      store(quad);
    }
    accumulate(quads - 1, acc);
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; r++) {
      alignas(32) float of_tokens[max_dot_tokens];
      _mm256_store_ps(of_tokens, _mm256_add_ps(_mm512_castps512_ps256(acc[r]), _mm512_extractf32x8_ps(acc[r], 1)));
      if (static_cast<uint64_t>(r) < live_rows_)
        for (int t = 0; t < tokens; t++) sums[static_cast<uint64_t>(t) * sum_stride + static_cast<uint64_t>(r)] = of_tokens[t];
    }
  }

 private:
  inline __attribute__((always_inline)) void unpack(uint64_t quad) {
    const uint64_t first = quad * quad_blocks;
    if (quad % run_quads == 0) {
      const uint64_t left = w_.blocks - first;
      const __mmask16 live = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
      for (uint64_t r = 0; r < live_rows_; r++)
        _mm512_store_ps(scale_[quad / run_quads % 2][r], rows_.scales((row_ + r) * w_.blocks + first, live));
    }
    const uint64_t offset = first * Rows::block_bytes, left = row_bytes_ - offset;
    const uint8_t *code = rows_.code + row_ * row_bytes_ + offset;
    for (uint64_t r = 0; r < live_rows_; r++, code += row_bytes_) {
      _mm_prefetch(reinterpret_cast<const char *>(code + tile_rows * row_bytes_), _MM_HINT_T1);
      rows_.unpack(code, left, weights_[quad % 2][r]);
    }
  }

  inline __attribute__((always_inline)) void multiply(uint64_t quad) {
    // The tile intrinsics do not say which memory they read and write.
    __asm__ volatile("" ::: "memory");
    const PackedBlock *block = x_ + quad * quad_blocks;
    const int8_t *weights = weights_[quad % 2][0];
    constexpr int64_t stride = quad_blocks * block_cols;
    _tile_zero(0);
    _tile_loadd(4, weights, stride);
    _tile_loadd(6, block[0].x, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_zero(1);
    _tile_loadd(5, weights + 32, stride);
    _tile_loadd(7, block[1].x, 64);
    _tile_dpbssd(1, 5, 7);
    _tile_zero(2);
    _tile_loadd(4, weights + 64, stride);
    _tile_loadd(6, block[2].x, 64);
    _tile_dpbssd(2, 4, 6);
    _tile_zero(3);
    _tile_loadd(5, weights + 96, stride);
    _tile_loadd(7, block[3].x, 64);
    _tile_dpbssd(3, 5, 7);
  }

  inline __attribute__((always_inline)) void store(uint64_t quad) {
    int32_t(*products)[tile_rows][16] = products_[quad % 2];
    _tile_stored(0, products[0], 64);
    _tile_stored(1, products[1], 64);
    _tile_stored(2, products[2], 64);
    _tile_stored(3, products[3], 64);
    __asm__ volatile("" ::: "memory");
  }

  inline __attribute__((always_inline)) void accumulate(uint64_t quad, __m512 (&acc)[tile_rows]) const {
    const float(*scale)[quad_blocks * run_quads] = scale_[quad / run_quads % 2];
    for (uint64_t b = 0; b < quad_blocks; b++) {
      const __m512 of_tokens = _mm512_loadu_ps(x_[quad * quad_blocks + b].scale);
      const uint64_t in_run = quad % run_quads * quad_blocks + b;
#pragma GCC unroll 16
      for (int r = 0; r < tile_rows; r++) {
        const __m512 product = _mm512_cvtepi32_ps(_mm512_load_si512(products_[quad % 2][b][r]));
        acc[r] = _mm512_fmadd_ps(_mm512_mul_ps(product, of_tokens), _mm512_set1_ps(scale[r][in_run]), acc[r]);
      }
    }
  }

  alignas(64) int8_t weights_[2][tile_rows][quad_blocks * block_cols];
  alignas(64) int32_t products_[2][quad_blocks][tile_rows][16];
  alignas(64) float scale_[2][tile_rows][quad_blocks * run_quads];
  const Weight &w_;
  const Rows &rows_;
  const uint64_t row_, live_rows_, row_bytes_;
  const PackedBlock *x_;
};

template <class Rows>
void dot_rows(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  const Rows rows(w);
  configure();
  for (uint64_t row = row_begin; row < row_end; row += tile_rows) {
    const uint64_t live = row_end - row < tile_rows ? row_end - row : tile_rows;
    TileRows<Rows>(w, rows, row, live, static_cast<const PackedBlock *>(packed)).run(tokens, sums + (row - row_begin), sum_stride);
  }
  _tile_release();
}

void dot(const Weight &w, uint64_t row_begin, uint64_t row_end, const void *packed, int tokens, float *sums, uint64_t sum_stride) {
  if (w.format == Format::q8) return dot_rows<Q8Rows>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
  dot_rows<Q4oRows>(w, row_begin, row_end, packed, tokens, sums, sum_stride);
}

}  // namespace

const FastKernels *fast_kernels_amx() {
  static const FastKernels kernels = {packed_bytes, pack, dot};
  return &kernels;
}

}  // namespace airk
