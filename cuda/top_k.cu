// airk_top_k: a radix select finds the k-th largest key of a row, then the k keys are collected and sorted in shared memory.
#include "../cpu/arguments.h"
#include "../cpu/order.h"
#include "context.h"
#include "warp.h"

namespace airk {
namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 256;
constexpr unsigned kMostBlocks = 1u << 16;
static_assert(kMostTopK <= kThreads, "a thread sorts one key");

// Keys (cpu/order.h) hold value and index, so that no two are equal and exactly k are at least the k-th. One block a row at a time.
__global__ void __launch_bounds__(kThreads)
    top_k(float *value, int *index, const float *x, uint64_t rows, uint64_t cols, unsigned k) {
  __shared__ unsigned histogram[kBins];
  __shared__ uint64_t kept[kThreads];
  __shared__ uint64_t known;      // the upper bits of the k-th largest key
  __shared__ unsigned wanted;     // its rank, from 1, among the keys that share them
  __shared__ unsigned collected;
  const unsigned thread = threadIdx.x;
  for (uint64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float *from = x + row * cols;
    if (thread == 0) {
      known = 0;
      wanted = k;
      collected = 0;
    }
    for (int shift = 56; shift >= 0; shift -= 8) {
      if (thread < kBins) histogram[thread] = 0;
      __syncthreads();
      // Of a 64-bit number no 64 bits can be shifted out.
      const uint64_t prefix = known;
      for (uint64_t i = thread; i < cols; i += kThreads) {
        const uint64_t key = order_key(from[i], static_cast<uint32_t>(i));
        if (shift == 56 || key >> (shift + 8) == prefix) atomicAdd(&histogram[key >> shift & (kBins - 1)], 1u);
      }
      __syncthreads();
      if (thread == 0) {
        unsigned bin = kBins - 1;
        while (histogram[bin] < wanted) wanted -= histogram[bin--];
        known = prefix << 8 | bin;
      }
      __syncthreads();
    }
    const uint64_t least = known;
    kept[thread] = 0;
    __syncthreads();
    for (uint64_t i = thread; i < cols; i += kThreads) {
      const uint64_t key = order_key(from[i], static_cast<uint32_t>(i));
      if (key >= least) kept[atomicAdd(&collected, 1u)] = key;
    }
    // Bitonic sort, descending; zeros, below every key, end up behind.
    for (unsigned size = 2; size <= kThreads; size *= 2) {
      for (unsigned distance = size / 2; distance > 0; distance /= 2) {
        __syncthreads();
        const unsigned other = thread ^ distance;
        if (other > thread) {
          const uint64_t a = kept[thread], b = kept[other];
          if ((a < b) == ((thread & size) == 0)) {
            kept[thread] = b;
            kept[other] = a;
          }
        }
      }
    }
    __syncthreads();
    if (thread < k) {
      const uint32_t col = order_index(kept[thread]);
      index[row * k + thread] = static_cast<int>(col);
      value[row * k + thread] = from[col];
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_top_k(airk_stream *stream, airk_ptr value, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols,
                                  uint64_t k) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_top_k(stream, value, index, x, rows, cols, k);
  if (invalid != AIRK_OK) return invalid;
  const unsigned blocks = static_cast<unsigned>(std::min<uint64_t>(rows, airk::kMostBlocks));
  return airk::enqueue_on(stream, "top_k", [=](cudaStream_t handle) {
    return airk::launch(blocks, airk::kThreads, 0, handle)(airk::top_k, at<float>(value), at<int>(index), at<const float>(x), rows, cols,
                                                           static_cast<unsigned>(k));
  });
}
