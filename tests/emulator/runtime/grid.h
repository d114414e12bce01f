// Running one kernel launch: its blocks spread over worker threads.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "emu/device.h"

namespace emu {

struct Grid {
  std::string name;  // of the kernel
  Location at;       // of the launch
  dim3 grid, block;
  size_t shared_bytes;  // of the buffer that dynamic_shared() returns
  std::function<void()> thread;
  size_t tls_module = 0, tls_bytes = 0;  // the library's thread-local block: static __shared__ variables

  uint32_t id = 0;
  std::vector<uint32_t> order;           // of the blocks; empty for the natural one
  std::atomic<size_t> next_block{0};
  std::atomic<int> error{0};             // the first one; no block starts after it

  size_t blocks() const { return static_cast<size_t>(grid.x) * grid.y * grid.z; }
  unsigned block_threads() const { return block.x * block.y * block.z; }
};

// Runs all blocks and returns the error that ended the launch, or 0.
int run_grid(Grid &grid);

// Splitmix64 and xorshift64: small, seeded, the same everywhere.
uint64_t mix_seed(uint64_t seed);
uint64_t next_random(uint64_t &state);

}  // namespace emu
