// What a test sets: from the environment variable CUDA_EMU when the library is first used, later by emu_configure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

enum class Order { natural, reverse, random };
enum class Streams { eager, lazy, random };

// "key=value,key=value"; sizes as 512MiB, 8GiB.
struct Settings {
  uint64_t vram_bytes = 8ull << 30;       // vram
  uint64_t reserved_bytes = 0;            // reserved: what a CUDA context and other processes hold of it
  int devices = 1;                        // devices
  int compute_capability = 86;            // compute_capability=8.6
  bool driver = true;                     // driver=0: every call answers cudaErrorInsufficientDriver
  Streams streams = Streams::eager;       // streams=eager|lazy|random
  Order order = Order::natural;           // order=natural|reverse|random: of threads in a block, and of blocks
  uint64_t seed = 1;                      // seed, of both random orders
  int threads = 0;                        // threads: OS threads that run blocks, 0 for one a core
  uint64_t stack_bytes = 64 << 10;        // stack, of a CUDA thread
  bool strict = true;                     // strict=0 allows a barrier that some threads have left or reach on another line
  uint64_t poison_bytes = 256ull << 20;   // poison: allocations up to this size are filled with NaN, 0 for none
  bool quiet = false;                     // quiet=1: findings are kept for emu_report and not printed
  uint64_t fail_malloc = 0;               // fail_malloc=N: the Nth cudaMalloc from now fails; 0 for never
  uint64_t fail_host_alloc = 0;           // fail_host_alloc=N: the Nth cudaHostAlloc
  uint64_t fail_launch = 0;               // fail_launch=N: the Nth kernel fails when it runs, with fail_error, which is sticky
  uint64_t fail_sync = 0;                 // fail_sync=N: the Nth synchronizing call finds the device lost, likewise
  int fail_error = 719;                   // fail_error: the error of a failed launch or synchronization

  uint64_t shared_optin_bytes() const;
  uint64_t shared_multiprocessor_bytes() const;
};

extern Settings settings;

// Applies `text`; returns an error message, empty where all was understood. Nothing is applied if anything is wrong.
std::string configure(const char *text);

}  // namespace emu
