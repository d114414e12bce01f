// What cuda/ptx.h declares, on the CPU. The layouts are those written there, from the PTX ISA: where kernel and twin share a
// misreading of it, only a GPU tells.
#pragma once

#include <cstring>

#include "bfloat16.h"
#include "device.h"
#include "half.h"

namespace emu {

struct MatrixOperands {
  float *d;
  const uint32_t *a, *b;
  const float *c;
};

// d = a * b + c by 32 lanes, `to_float` reading the 16-bit operands. Products are exact in float; sums are rounded in order of k.
template <float (*to_float)(uint16_t)> void multiply_fragments(void **lanes) {
  float a[16][16], b[16][8], c[16][8];
  const auto part = [](uint32_t pair, int which) { return to_float(static_cast<uint16_t>(pair >> (16 * which))); };
  for (int lane = 0; lane < 32; lane++) {
    const MatrixOperands &own = *static_cast<MatrixOperands *>(lanes[lane]);
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 2; i++) {
      a[group][pair + i] = part(own.a[0], i);
      a[group + 8][pair + i] = part(own.a[1], i);
      a[group][pair + 8 + i] = part(own.a[2], i);
      a[group + 8][pair + 8 + i] = part(own.a[3], i);
      b[pair + i][group] = part(own.b[0], i);
      b[pair + 8 + i][group] = part(own.b[1], i);
      c[group][pair + i] = own.c[i];
      c[group + 8][pair + i] = own.c[2 + i];
    }
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) c[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++) {
    const MatrixOperands &own = *static_cast<MatrixOperands *>(lanes[lane]);
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 2; i++) {
      own.d[i] = c[group][pair + i];
      own.d[2 + i] = c[group + 8][pair + i];
    }
  }
}

template <float (*to_float)(uint16_t)>
void multiply_accumulate(float *d, const uint32_t *a, const uint32_t *b, const float *c, Location at) {
  MatrixOperands own{d, a, b, c};
  warp_collective(&own, multiply_fragments<to_float>, at);
}

struct MatrixRow {
  uint16_t elements[8];  // the row that this lane's address names
  uint32_t *result;
};

// Each lane reads its own row, so that a check of memory accesses blames the lane that named the address.
template <int N, bool kTransposed> void load_matrices(uint32_t *result, const void *row, Location at) {
  MatrixRow own;
  own.result = result;
  if (lane() < 8 * N) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail(716, "ldmatrix at %s:%d: a row's address is not a multiple of 16", at.file, at.line);
    const uint16_t *from = static_cast<const uint16_t *>(row);
    for (int i = 0; i < 8; i++) own.elements[i] = from[i];
  }
  warp_collective(
      &own,
      [](void **lanes) {
        const auto element = [lanes](int matrix, int r, int c) -> uint32_t { return static_cast<MatrixRow *>(lanes[8 * matrix + r])->elements[c]; };
        for (int matrix = 0; matrix < N; matrix++)
          for (int l = 0; l < 32; l++) {
            const int along = l % 4 * 2, across = l / 4;
            const uint32_t low = kTransposed ? element(matrix, along, across) : element(matrix, across, along);
            const uint32_t high = kTransposed ? element(matrix, along + 1, across) : element(matrix, across, along + 1);
            static_cast<MatrixRow *>(lanes[l])->result[matrix] = low | high << 16;
          }
      },
      at);
}

}  // namespace emu

namespace airk {

inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_HERE) {
  emu::multiply_accumulate<emu::half_to_float>(d, a, b, d, EMU_AT);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_HERE) {
  emu::multiply_accumulate<emu::bfloat16_to_float>(d, a, b, d, EMU_AT);
}
template <int N, bool kTransposed = false> void load_matrix(uint32_t (&r)[N], const void *row, EMU_HERE) {
  static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
  emu::load_matrices<N, kTransposed>(r, row, EMU_AT);
}
inline void async_copy_16(void *to, const void *from, bool valid = true, EMU_HERE) { emu::async_copy(to, from, 16, valid ? 16 : 0, EMU_AT); }
inline void async_commit() { emu::async_commit(); }
template <int N> void async_wait() { emu::async_wait(N); }
inline uint4 load_streaming_16(const void *from) { return *static_cast<const uint4 *>(from); }

}  // namespace airk
