/*
 * ptx.h: all inline PTX of the CUDA library. Under g++ tests/emulator/include/emu/ptx_twin.h defines the same functions;
 * the PTX tier of tests/emulator executes the assembly below itself.
 * Fragment layouts and instruction descriptions: PTX ISA 9.0, sections 9.7.9 (data movement) and 9.7.14 (matrix).
 */
#ifndef AIRK_PTX_H
#define AIRK_PTX_H

#include "launch.h"

#ifdef AIRK_EMULATED
#include "emu/ptx_twin.h"
#else

namespace airk {

__device__ __forceinline__ unsigned shared_address(const void *pointer) { return static_cast<unsigned>(__cvta_generic_to_shared(pointer)); }

/*
 * d += a * b, all 32 lanes together. a: 16 x 16 row-major, b: 16 x 8 column-major, d: 16 x 8 float.
 * With group = lane / 4 and pair = lane % 4 * 2, a lane holds
 *   a[0] = A[group][pair, +1]       a[1] = A[group + 8][pair, +1]
 *   a[2] = A[group][pair + 8, +9]   a[3] = A[group + 8][pair + 8, +9]
 *   b[0] = B[pair, +1][group]       b[1] = B[pair + 8, +9][group]
 *   d[0], d[1] = D[group][pair, +1] d[2], d[3] = D[group + 8][pair, +1]
 */
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else /* sm_75 multiplies 8 columns at a time */
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

/* As mma_f16, in bfloat16. From sm_80 on: below, it traps. */
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

/*
 * Loads N 8 x 8 matrices of 16-bit elements from shared memory: `row` of lanes 8 i .. 8 i + 7 are the rows of matrix i, each 16
 * bytes long and aligned. Lane l gets of each matrix the elements 2 (l % 4) and the next one of row l / 4; transposed, of column l / 4.
 */
template <int N, bool kTransposed = false> __device__ __forceinline__ void load_matrix(uint32_t (&r)[N], const void *row) {
  static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
  const unsigned address = shared_address(row);
  if constexpr (N == 1 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n" : "=r"(r[0]) : "r"(address) : "memory");
  else if constexpr (N == 1)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n" : "=r"(r[0]) : "r"(address) : "memory");
  else if constexpr (N == 2 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n" : "=r"(r[0]), "=r"(r[1]) : "r"(address) : "memory");
  else if constexpr (N == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n" : "=r"(r[0]), "=r"(r[1]) : "r"(address) : "memory");
  else if constexpr (!kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

/*
 * Starts copying 16 aligned bytes from global to shared memory past L1; zeros where not `valid`, and `from` is not read then. They are there for
 * this thread after async_wait, for the others after a barrier that follows it. sm_75 copies at once.
 */
__device__ __forceinline__ void async_copy_16(void *to, const void *from, bool valid = true) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
#else
  *static_cast<uint4 *>(to) = valid ? *static_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
#endif
}

/* Closes the group of copies that this thread has started since the last one. */
__device__ __forceinline__ void async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/* Waits until at most N of this thread's latest groups are under way. */
template <int N> __device__ __forceinline__ void async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#endif
}

/* Loads 16 aligned bytes that nothing writes during the kernel and that are read once: weights. Keeps them out of L1. */
__device__ __forceinline__ uint4 load_streaming_16(const void *from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

}  // namespace airk

#endif
#endif
