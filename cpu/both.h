// Marks a function that the CUDA library's kernels use as well as the CPU twin.
#pragma once

#if defined(__CUDACC__)
#define AIRK_BOTH __host__ __device__
#else
#define AIRK_BOTH
#endif

// The same, always inlined: a copy compiled with one instruction set must never serve another.
#define AIRK_BOTH_INLINE AIRK_BOTH inline __attribute__((always_inline))
