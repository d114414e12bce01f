// One thread block at a time on one OS thread: every CUDA thread is a fiber, which runs until it waits.
#pragma once

#include <vector>

#include "context_switch.h"
#include "grid.h"

namespace emu {

constexpr unsigned kWarpLanes = 32;
constexpr size_t kStackGuardBytes = 256 << 10;  // below each stack; more than a frame that overflows it is likely to skip

enum class FiberState : uint8_t { fresh, ready, at_barrier, at_warp_op, done };

struct AsyncCopy {
  void *to;
  const void *from;
  int bytes, valid_bytes, group;
  Location at;
};

struct Fiber {
  Context context;
  char *stack = nullptr;  // the lowest address; nullptr before the fiber starts and after it ends
  void *sanitizer_stack = nullptr;
  uint3 thread;
  unsigned linear;  // index in the block
  FiberState state;
  Location at;      // of the operation it waits in

  WarpOp op;        // the warp operation it waits in
  unsigned mask;
  uint64_t value, result;
  int source_lane;
  void (*resolve)(void **);

  uint32_t barriers, warp_syncs;  // passed so far; what the race checker orders accesses by
  int async_group;
  std::vector<AsyncCopy> async_copies;

  unsigned warp() const { return linear / kWarpLanes; }
  unsigned lane() const { return linear % kWarpLanes; }
};

// The current OS thread's executor of blocks.
class BlockRunner {
 public:
  BlockRunner();
  // Binds the runner to a launch: its shared memory is laid out. Call before run_block.
  void begin(Grid &grid);
  void run_block(size_t block);

  // Called by the running fiber.
  Votes barrier(int vote, Location at);
  uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int source_lane, void (*resolve)(void **), Location at);
  [[noreturn]] void fail(int error, const char *message);
  [[noreturn]] static void fiber_main();

  Fiber *current = nullptr;  // nullptr while no kernel code runs
  Grid *grid = nullptr;
  uint32_t block_serial = 0;
  char *shared = nullptr;             // dynamic shared memory, [shared, shared_end)
  char *shared_end = nullptr;
  char *static_shared = nullptr;      // the kernel library's thread-local block
  char *static_shared_end = nullptr;
  size_t stack_bytes() const { return stack_bytes_; }

 private:
  void lay_out_shared(size_t bytes);
  void check_shared_tail();
  void resume(Context &from, Fiber *next);
  void return_to_worker(Context &from, Fiber *leaving);
  void park();
  Fiber *pick();
  void make_ready(Fiber &fiber);
  void release_barrier();
  bool resolve_warp(unsigned warp, unsigned mask);
  void finish_current();
  void report_deadlock();
  char *take_stack();

  Context worker_;
  void *worker_sanitizer_stack_ = nullptr;
  const void *worker_stack_;
  size_t worker_stack_bytes_;

  std::vector<Fiber> fibers_;
  unsigned threads_ = 0, live_ = 0, arrived_ = 0;
  Votes votes_, released_votes_;
  std::vector<unsigned> warp_live_, warp_waiting_;  // lane masks
  std::vector<Fiber *> ready_, fresh_;              // both taken from their heads
  size_t ready_head_ = 0, fresh_head_ = 0;
  std::vector<char *> stacks_;                      // not in use
  size_t stack_bytes_ = 0;
  uint64_t random_ = 1;
  char *shared_mapping_ = nullptr;
  size_t shared_mapping_bytes_ = 0, shared_bytes_ = 0;
};

// The runner of this OS thread while it executes a launch, else nullptr.
extern thread_local BlockRunner *runner EMU_TLS;

}  // namespace emu
