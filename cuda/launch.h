/*
 * launch.h: how the CUDA library starts kernels and gets dynamic shared memory. With ptx.h the only place that knows
 * whether nvcc compiles for a GPU or g++ for tests/emulator: kernels include these two and no other CUDA header.
 *
 *   cudaError_t error = airk::launch(grid, block, shared_bytes, stream)(kernel, argument, ...);
 *   AIRK_DYNAMIC_SHARED(float, tile);   inside a kernel: float *tile, aligned to 16 bytes
 *
 * So that the same source runs on both: no <<<>>>, no `extern __shared__`, no cooperative groups, no reliance on the lanes
 * of a warp running in lockstep; __align__(16) rather than alignas(16) behind __shared__; no thread_local variable in the library.
 */
#ifndef AIRK_LAUNCH_H
#define AIRK_LAUNCH_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#ifdef AIRK_EMULATED

#define AIRK_DYNAMIC_SHARED(T, name) T *name = static_cast<T *>(emu::dynamic_shared())

namespace airk {
/* Returns a launch to be called with a kernel and its arguments; reports name the line of this call. */
inline emu::Launch launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, EMU_HERE) {
  return emu::Launch(grid, block, shared_bytes, stream, EMU_AT);
}
/* Fills memory whose contents are lost with NaN, so that what reads it before it is written gives a wrong result each time. */
inline cudaError_t poison(void *memory, size_t bytes, cudaStream_t stream) { return cudaMemsetAsync(memory, 0xff, bytes, stream); }
}  // namespace airk

#else

#define AIRK_DYNAMIC_SHARED(T, name)                              \
  extern __shared__ __align__(16) unsigned char airk_dynamic_shared[]; \
  T *name = reinterpret_cast<T *>(airk_dynamic_shared)

namespace airk {
class Launch {
 public:
  Launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) : config_{} {
    config_.gridDim = grid;
    config_.blockDim = block;
    config_.dynamicSmemBytes = shared_bytes;
    config_.stream = stream;
  }
  template <class... Parameters, class... Arguments>
  cudaError_t operator()(void (*kernel)(Parameters...), Arguments &&...arguments) const {
    return cudaLaunchKernelEx(&config_, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  }

 private:
  cudaLaunchConfig_t config_;
};

/* Returns a launch to be called with a kernel and its arguments. */
inline Launch launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
  return Launch(grid, block, shared_bytes, stream);
}
/* On a GPU memory is left as it is. */
inline cudaError_t poison(void *, size_t, cudaStream_t) { return cudaSuccess; }
}  // namespace airk

#endif
#endif
