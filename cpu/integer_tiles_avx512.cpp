// Tiles of the fast matrix product on AVX-512 VNNI: bytes times bytes, a block of 32 columns at a time.
//
// vpdpbusd multiplies unsigned by signed bytes: activations enter as X + 128, and 128 times the sum of a block's weights is taken off by
// starting from it. A block's sum is exact; it becomes float32 with the scales of both sides before the next block.
#include <immintrin.h>

#include <cstring>

#include "kernels.h"

// GCC 12 takes the undefined upper halves inside its own intrinsics for uninitialized variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace airk {
namespace {

constexpr int tile_rows = 6;  // times two vectors of tokens, twice: as integers and as floats; the rest of the registers holds operands
constexpr int lanes = 16;
constexpr float largest_integer = 127.0f;

// One block of columns of a tile of tokens.
template <int V>
struct PackedBlock {
  float scale[V * lanes];
  uint8_t x[8][V * lanes][4];  // [column / 4][token][column % 4]
};

// One block of columns of a tile of rows.
struct PanelBlock {
  int32_t correction[tile_rows];  // -128 * sum(code)
  float scale[tile_rows];
  int8_t code[tile_rows][block_cols];
};

template <int V>
uint64_t packed_bytes(uint64_t blocks) {
  return blocks * sizeof(PackedBlock<V>);
}

uint64_t panel_bytes(uint64_t blocks) { return blocks * sizeof(PanelBlock); }

template <int V>
void pack(const float *x, uint64_t blocks, int token, void *packed) {
  PackedBlock<V> *out = static_cast<PackedBlock<V> *>(packed);
  for (uint64_t b = 0; b < blocks; b++, x += block_cols) {
    const __m512 v[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + lanes)};
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1])));
    // Blocks too small to divide by vanish; their products would be below float32's normal range too.
    const float inverse = largest > 1e-30f ? largest_integer / largest : 0.0f;
    out[b].scale[token] = inverse == 0.0f ? 0.0f : largest / largest_integer;
    for (int half = 0; half < 2; half++) {
      const __m512i integer = _mm512_cvtps_epi32(_mm512_mul_ps(v[half], _mm512_set1_ps(inverse)));
      alignas(16) uint32_t bytes[4];
      _mm_store_si128(reinterpret_cast<__m128i *>(bytes), _mm_xor_si128(_mm512_cvtepi32_epi8(integer), _mm_set1_epi8(-128)));
      for (int i = 0; i < 4; i++) std::memcpy(out[b].x[4 * half + i][token], &bytes[i], 4);
    }
  }
}

// Unpacks 64 bytes of code, of which `bytes` are the row's, into the panel's blocks from `block` on.
inline __attribute__((always_inline)) void unpack_q4o(const uint8_t *code, uint64_t bytes, __m512i table, int row, PanelBlock *block) {
  const __m512i packed = bytes >= 64 ? _mm512_loadu_si512(code) : _mm512_maskz_loadu_epi8((uint64_t{1} << bytes) - 1, code);
  const __m512i mask = _mm512_set1_epi8(15), ones = _mm512_set1_epi8(1);
  const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(packed, mask));
  const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask));
  // Four lanes a block.
  __m512i sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, low), ones, high);
  sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
  sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_CDAB));
  alignas(64) int32_t sums[lanes];
  _mm512_store_si512(sums, sum);
  // The 16 bytes of a block's low nibbles and the 16 of its high ones become neighbours.
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  alignas(64) int8_t codes[4][block_cols];
  _mm512_store_si512(codes[0], _mm512_permutex2var_epi64(low, first, high));
  _mm512_store_si512(codes[2], _mm512_permutex2var_epi64(low, second, high));
  const int blocks = bytes >= 64 ? 4 : static_cast<int>(bytes / 16);
  for (int b = 0; b < blocks; b++) {
    std::memcpy(block[b].code[row], codes[b], block_cols);
    block[b].correction[row] = -128 * sums[4 * b];
  }
}

void unpack_q4o_row(const Weight &w, uint64_t row, int to_row, PanelBlock *panel) {
  const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w.q4o.code_table)));
  const uint8_t *code = w.q4o.code + row * w.blocks * 16;
  const int8_t *scale = w.q4o.block_scale + row * w.blocks;
  for (uint64_t b = 0; b < w.blocks; b += 4) unpack_q4o(code + b * 16, (w.blocks - b) * 16, table, to_row, panel + b);
  for (uint64_t b = 0; b < w.blocks; b++) panel[b].scale[to_row] = scale[b];
}

void unpack_q8_row(const Weight &w, uint64_t row, int to_row, PanelBlock *panel) {
  const int8_t *code = w.q8.code + row * w.blocks * block_cols;
  const uint16_t *scale = w.q8.scale + row * w.blocks;
  const __m256i ones = _mm256_set1_epi8(1);
  for (uint64_t b = 0; b < w.blocks; b++) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(code + b * block_cols));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(panel[b].code[to_row]), codes);
    const __m256i quads = _mm256_dpbusd_epi32(_mm256_setzero_si256(), ones, codes);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
    panel[b].correction[to_row] = -128 * _mm_cvtsi128_si32(sum);
    panel[b].scale[to_row] = from_bf16(scale[b]);
  }
}

void unpack(const Weight &w, uint64_t row_begin, uint64_t row_end, void *panel) {
  PanelBlock *blocks = static_cast<PanelBlock *>(panel);
  const int rows = static_cast<int>(row_end - row_begin);
  for (int r = 0; r < rows; r++) {
    if (w.format == Format::q8) {
      unpack_q8_row(w, row_begin + static_cast<uint64_t>(r), r, blocks);
    } else {
      unpack_q4o_row(w, row_begin + static_cast<uint64_t>(r), r, blocks);
    }
  }
  for (uint64_t b = 0; rows < tile_rows && b < w.blocks; b++) {
    for (int r = rows; r < tile_rows; r++) {
      std::memset(blocks[b].code[r], 0, block_cols);
      blocks[b].correction[r] = 0;
      blocks[b].scale[r] = 0.0f;
    }
  }
}

template <int V>
void multiply(const void *panel, const void *packed, uint64_t blocks, float *sums) {
  const PanelBlock *w = static_cast<const PanelBlock *>(panel);
  const PackedBlock<V> *x = static_cast<const PackedBlock<V> *>(packed);
  __m512 total[tile_rows][V];
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; r++)
    for (int v = 0; v < V; v++) total[r][v] = _mm512_setzero_ps();
  for (uint64_t b = 0; b < blocks; b++, w++, x++) {
    __m512i sum[tile_rows][V];
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; r++)
      for (int v = 0; v < V; v++) sum[r][v] = _mm512_set1_epi32(w->correction[r]);
#pragma GCC unroll 8
    for (int quad = 0; quad < 8; quad++) {
      __m512i tokens[V];
      for (int v = 0; v < V; v++) tokens[v] = _mm512_loadu_si512(x->x[quad][v * lanes]);
#pragma GCC unroll 16
      for (int r = 0; r < tile_rows; r++) {
        int32_t four;
        std::memcpy(&four, w->code[r] + 4 * quad, 4);
        const __m512i codes = _mm512_set1_epi32(four);
        for (int v = 0; v < V; v++) sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], tokens[v], codes);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; r++) {
      const __m512 scale = _mm512_set1_ps(w->scale[r]);
      for (int v = 0; v < V; v++) {
        const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][v]), _mm512_loadu_ps(x->scale + v * lanes));
        total[r][v] = _mm512_fmadd_ps(scaled, scale, total[r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; r++)
    for (int v = 0; v < V; v++) _mm512_storeu_ps(sums + (r * V + v) * lanes, total[r][v]);
}

template <int V>
void add_column(const void *packed, uint64_t col, float weight, float *sums) {
  const PackedBlock<V> &block = static_cast<const PackedBlock<V> *>(packed)[col / block_cols];
  const uint64_t in_block = col % block_cols;
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(8 * (in_block % 4)));
  for (int v = 0; v < V; v++) {
    const __m512i four = _mm512_loadu_si512(block.x[in_block / 4][v * lanes]);
    const __m512i one = _mm512_and_si512(_mm512_srl_epi32(four, shift), _mm512_set1_epi32(255));
    const __m512 integer = _mm512_sub_ps(_mm512_cvtepi32_ps(one), _mm512_set1_ps(128.0f));
    const __m512 factor = _mm512_mul_ps(_mm512_loadu_ps(block.scale + v * lanes), _mm512_set1_ps(weight));
    _mm512_storeu_ps(sums + v * lanes, _mm512_fmadd_ps(integer, factor, _mm512_loadu_ps(sums + v * lanes)));
  }
}

template <int V>
constexpr IntegerTiles tiles() {
  return {tile_rows, V * lanes, packed_bytes<V>, pack<V>, panel_bytes, unpack, multiply<V>, add_column<V>};
}

}  // namespace

const IntegerTiles *integer_tiles_avx512(bool few_tokens) {
  static const IntegerTiles many = tiles<2>(), few = tiles<1>();
  return few_tokens ? &few : &many;
}

double peak_integers_avx512(int64_t repeats) {
  constexpr int chains = 12;
  __m512i sum[chains];
  const __m512i tokens = _mm512_set1_epi8(1), codes = _mm512_set1_epi8(-1);
#pragma GCC unroll 16
  for (int c = 0; c < chains; c++) sum[c] = _mm512_set1_epi32(c);
  for (int64_t i = 0; i < repeats; i++) {
#pragma GCC unroll 16
    for (int c = 0; c < chains; c++) {
      sum[c] = _mm512_dpbusd_epi32(sum[c], tokens, codes);
      // Or the compiler could see through the loop.
      __asm__ volatile("" : "+v"(sum[c]));
    }
  }
  __m512i total = sum[0];
#pragma GCC unroll 16
  for (int c = 1; c < chains; c++) total = _mm512_xor_si512(total, sum[c]);
  __asm__ volatile("" ::"v"(total));
  return static_cast<double>(repeats) * chains * 64 * 2;
}

}  // namespace airk
