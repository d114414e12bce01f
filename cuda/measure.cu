// The ceilings that kernels are compared with: memory reads and arithmetic.
#include <algorithm>

#include "context.h"
#include "ptx.h"

namespace airk {
namespace {

constexpr int kThreads = 256, kReadsAtOnce = 4, kBlocksEach = 8;

// `sink` is written where the sum has one value in 2^32: the compiler must keep the reads.
__global__ void __launch_bounds__(kThreads) read_all(const uint4 *from, uint64_t count, unsigned *sink) {
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * kThreads;
  unsigned sum = 0;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += kReadsAtOnce * step) {
    uint4 values[kReadsAtOnce];
#pragma unroll
    for (int j = 0; j < kReadsAtOnce; j++) values[j] = i + j * step < count ? load_streaming_16(from + i + j * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < kReadsAtOnce; j++) sum += values[j].x ^ values[j].y ^ values[j].z ^ values[j].w;
  }
  if (sum == 0x9e3779b9u) atomicExch(sink, sum);
}

__global__ void __launch_bounds__(kThreads) multiply_add(int repeats, float factor, float *sink) {
  float sums[8];
#pragma unroll
  for (int i = 0; i < 8; i++) sums[i] = static_cast<float>(threadIdx.x + i);
  for (int repeat = 0; repeat < repeats; repeat++) {
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] = fmaf(sums[i], factor, 1.0f);
  }
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++) total += sums[i];
  if (total == -1.0f) *sink = total;
}

__global__ void __launch_bounds__(kThreads) multiply_tensor(int repeats, float *sink) {
  float sums[8][4] = {};
  const uint32_t a[4] = {threadIdx.x, 1, 2, 3}, b[2] = {threadIdx.x, 5};
  for (int repeat = 0; repeat < repeats; repeat++) {
#pragma unroll
    for (int i = 0; i < 8; i++) mma_bf16(sums[i], a, b);
  }
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++) total += sums[i][0];
  if (total == -1.0f) *sink = total;
}

// A stream, two events and a word of device memory.
class Timer {
 public:
  ~Timer() {
    if (start_) static_cast<void>(cudaEventDestroy(start_));
    if (stop_) static_cast<void>(cudaEventDestroy(stop_));
    if (word) static_cast<void>(cudaFree(word));
    if (stream_) static_cast<void>(cudaStreamDestroy(stream_));
  }
  cudaError_t open() {
    cudaError_t error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(&start_, cudaEventDefault);
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(&stop_, cudaEventDefault);
    if (error == cudaSuccess) error = cudaMalloc(&word, 16);
    return error;
  }
  template <class Start> cudaError_t run(Start &&start, double *seconds) {
    cudaError_t error = cudaEventRecord(start_, stream_);
    if (error == cudaSuccess) error = start(stream_);
    if (error == cudaSuccess) error = cudaEventRecord(stop_, stream_);
    if (error == cudaSuccess) error = cudaEventSynchronize(stop_);
    float ms = 0.0f;
    if (error == cudaSuccess) error = cudaEventElapsedTime(&ms, start_, stop_);
    // Events resolve about half a microsecond.
    *seconds = std::max(static_cast<double>(ms), 5e-4) / 1e3;
    return error;
  }

  void *word = nullptr;

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_measure_read(airk_context *context, airk_ptr address, uint64_t bytes, int32_t repeats, double *seconds) {
  if (context == nullptr) return AIRK_INVALID;
  constexpr uint64_t step = 512;
  if (address == 0 || address % 16 != 0 || bytes < step || repeats < 1 || seconds == nullptr) {
    return fail(context, AIRK_INVALID, "Cannot measure reads of %llu bytes at 0x%llx, %d times: required %llu bytes, a multiple of 16 and 1 time at least",
                static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(address), repeats, static_cast<unsigned long long>(step));
  }
  const airk_status status = use_device(context);
  if (status != AIRK_OK) return status;
  const uint64_t whole = bytes / step * step, count = whole / 16;
  const unsigned blocks = static_cast<unsigned>(
      std::min<uint64_t>((count + kThreads - 1) / kThreads, static_cast<uint64_t>(context->multiprocessors) * kBlocksEach));
  Timer timer;
  cudaError_t error = timer.open();
  *seconds = 1e300;
  for (int32_t i = 0; i < repeats && error == cudaSuccess; i++) {
    if (cancelled(context)) return fail(context, AIRK_CANCELLED, "Cannot measure reads: cancelled");
    double pass = 0.0;
    error = timer.run(
        [&](cudaStream_t stream) {
          return launch(blocks, kThreads, 0, stream)(read_all, at<const uint4>(address), count, static_cast<unsigned *>(timer.word));
        },
        &pass);
    *seconds = std::min(*seconds, pass * static_cast<double>(bytes) / static_cast<double>(whole));
  }
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : fail_cuda(context, "measure reads", error);
}

extern "C" airk_status airk_measure_peak(airk_context *context, int32_t kind, double *flops_per_second) {
  if (context == nullptr) return AIRK_INVALID;
  if ((kind != 0 && kind != 1) || flops_per_second == nullptr) {
    return fail(context, AIRK_INVALID, "Cannot measure the peak of kind %d, required 0 or 1", kind);
  }
  const airk_status status = use_device(context);
  if (status != AIRK_OK) return status;
  // Below sm_80 the fast path is the exact one.
  const bool tensor = kind == 1 && context->major >= 8;
  const unsigned blocks = static_cast<unsigned>(context->multiprocessors * kBlocksEach);
  // Of a thread, and for tensor cores of a warp: eight products of 16 x 8 x 16.
  const double operations = static_cast<double>(blocks) * (tensor ? kThreads / 32 * 8 * 4096.0 : kThreads * 16.0);
  Timer timer;
  cudaError_t error = timer.open();
  *flops_per_second = 0.0;
  // Longer and longer until a run is long enough to time.
  for (int repeats = 16; error == cudaSuccess; repeats *= 4) {
    double seconds = 0.0;
    error = timer.run(
        [&](cudaStream_t stream) {
          auto *sink = static_cast<float *>(timer.word);
          const auto start = launch(blocks, kThreads, 0, stream);
          return tensor ? start(multiply_tensor, repeats, sink) : start(multiply_add, repeats, 0.5f, sink);
        },
        &seconds);
    *flops_per_second = std::max(*flops_per_second, operations * repeats / seconds);
    if (seconds > 5e-3 || repeats >= 1 << 20) break;
  }
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : fail_cuda(context, "measure the peak", error);
}
