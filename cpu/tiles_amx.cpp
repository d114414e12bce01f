// Tiles of the fast matrix product on AMX: bf16 operands, float32 sums.
#include <immintrin.h>

#include "kernels.h"

// GCC 12 takes the undefined upper halves inside its own intrinsics for uninitialized variables (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace airk {
namespace {

constexpr int tile_rows = 16, tile_bytes = 64;

// All eight tile registers are 16 rows of 64 bytes: 0 to 3 sums, 4 and 5 weights, 6 and 7 activations.
void begin() {
  struct alignas(64) {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {};
  config.palette = 1;
  for (int i = 0; i < 8; i++) {
    config.row_bytes[i] = tile_bytes;
    config.rows[i] = tile_rows;
  }
  // GCC's intrinsic tells the compiler about the first eight bytes that are read alone.
  __asm__ volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

inline __m512i bf16_of(const float *p) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + 16), _mm512_loadu_ps(p)));
}

void pack_weights(const float *core, int64_t cols, void *panel_row) {
  uint8_t *out = static_cast<uint8_t *>(panel_row);
  for (int64_t c = 0; c < cols; c += 32) _mm512_storeu_si512(out + c * 2, bf16_of(core + c));
}

// panel [cols / 2][tokens][2]: the pair of columns that one product of a tile takes lies together.
template <int Tokens>
void pack_activations(const float *const *x, int64_t cols, void *panel) {
  uint32_t *out = static_cast<uint32_t *>(panel);
  for (int t = 0; t < Tokens; t++) {
    for (int64_t c = 0; c < cols; c += 32) {
      alignas(64) uint32_t pairs[16] = {};
      if (x[t] != nullptr) _mm512_store_si512(pairs, bf16_of(x[t] + c));
      for (int64_t i = 0; i < 16; i++) out[(c / 2 + i) * Tokens + t] = pairs[i];
    }
  }
}

// 32 rows times Tokens (32 or 16) tokens.
template <int Tokens>
void multiply(const void *a_panel, const void *b_panel, int64_t k, float *c, int64_t ldc) {
  const uint8_t *a = static_cast<const uint8_t *>(a_panel), *b = static_cast<const uint8_t *>(b_panel);
  constexpr int64_t a_stride = panel_stride * 2, b_stride = Tokens * 4;
  const int64_t c_stride = ldc * 4;
  float *lower = c + tile_rows * ldc;
  _tile_loadd(0, c, c_stride);
  _tile_loadd(2, lower, c_stride);
  if (Tokens == 32) {
    _tile_loadd(1, c + 16, c_stride);
    _tile_loadd(3, lower + 16, c_stride);
  }
  for (int64_t i = 0; i < k; i += 32) {
    _tile_loadd(6, b + i / 2 * b_stride, b_stride);
    _tile_loadd(4, a + i * 2, a_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + tile_rows * a_stride + i * 2, a_stride);
    _tile_dpbf16ps(2, 5, 6);
    if (Tokens == 32) {
      _tile_loadd(7, b + i / 2 * b_stride + tile_bytes, b_stride);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, c_stride);
  _tile_stored(2, lower, c_stride);
  if (Tokens == 32) {
    _tile_stored(1, c + 16, c_stride);
    _tile_stored(3, lower + 16, c_stride);
  }
}

// Transposes 16 x 16 floats in registers, in four rounds of exchanges between vectors 1, 2, 4 and 8 apart.
inline void transpose(__m512 (&v)[16]) {
  __m512 w[16];
  for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_shuffle_ps(w[i], w[i + 2], 0x44);
    v[i + 1] = _mm512_shuffle_ps(w[i], w[i + 2], 0xee);
    v[i + 2] = _mm512_shuffle_ps(w[i + 1], w[i + 3], 0x44);
    v[i + 3] = _mm512_shuffle_ps(w[i + 1], w[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    w[i] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88);
    w[i + 4] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd);
    w[i + 8] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0x88);
    w[i + 12] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    v[i] = _mm512_shuffle_f32x4(w[i], w[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(w[i], w[i + 8], 0xdd);
  }
}

// C is padded to whole tiles in both directions, so that only y needs masks.
void finish(const float *c, int64_t ldc, int64_t rows, int64_t tokens, const float *scale, const float *bias, float *y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; r += 16) {
    const __mmask16 live = rows - r >= 16 ? 0xffff : static_cast<__mmask16>((1u << (rows - r)) - 1);
    const __m512 s = scale == nullptr ? _mm512_set1_ps(1.0f) : _mm512_maskz_loadu_ps(live, scale + r);
    const __m512 b = bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(live, bias + r);
    for (int64_t t = 0; t < tokens; t += 16) {
      __m512 v[16];
      for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_ps(c + (r + i) * ldc + t);
      transpose(v);
      for (int i = 0; i < 16 && t + i < tokens; i++) _mm512_mask_storeu_ps(y + (t + i) * y_stride + r, live, _mm512_fmadd_ps(v[i], s, b));
    }
  }
}

}  // namespace

// Tiles of zeros, four sums at once to cover the latency.
double peak_amx(int64_t repeats) {
  begin();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(6);
  for (int64_t i = 0; i < repeats; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 6);
    _tile_dpbf16ps(2, 4, 6);
    _tile_dpbf16ps(3, 4, 6);
  }
  end();
  return static_cast<double>(repeats) * 4 * 2 * 16 * 16 * 32;
}

const TileKernel *bf16_tiles_amx(bool few_tokens) {
  static const TileKernel many = {2 * tile_rows, 32, 2, begin, end, pack_weights, pack_activations<32>, multiply<32>, finish};
  static const TileKernel few = {2 * tile_rows, 16, 2, begin, end, pack_weights, pack_activations<16>, multiply<16>, finish};
  return few_tokens ? &few : &many;
}

}  // namespace airk
