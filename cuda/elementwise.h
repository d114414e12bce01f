// Grids for kernels that walk over many elements with a stride.
#pragma once

#include <algorithm>

#include "launch.h"

namespace airk {

constexpr int kElementThreads = 256;

// Enough blocks for all elements, at most some thousands: each thread then takes several.
inline unsigned element_blocks(uint64_t count) {
  return static_cast<unsigned>(std::min<uint64_t>((count + kElementThreads - 1) / kElementThreads, 4096));
}

__device__ __forceinline__ uint64_t first_element() { return static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ uint64_t element_step() { return static_cast<uint64_t>(gridDim.x) * blockDim.x; }

}  // namespace airk
