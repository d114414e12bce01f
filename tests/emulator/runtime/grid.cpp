#include "grid.h"

#include <csignal>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "block.h"
#include "faults.h"
#include "settings.h"

namespace emu {

uint64_t mix_seed(uint64_t seed) {
  seed += 0x9e3779b97f4a7c15ull;
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9ull;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebull;
  return (seed ^ (seed >> 31)) | 1;
}

uint64_t next_random(uint64_t &state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

namespace {

// Threads of their own, never the caller's: the thread-local variables that stand for shared memory are wiped at every block.
class WorkerPool {
 public:
  void run(Grid &grid, unsigned workers) {
    while (threads_.size() < workers) {
      const size_t index = threads_.size();
      threads_.emplace_back([this, index] { work(index); });
      threads_.back().detach();  // they wait for work until the process ends
    }
    std::unique_lock<std::mutex> lock(mutex_);
    grid_ = &grid;
    workers_ = busy_ = workers;
    launch_++;
    wake_.notify_all();
    finished_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void work(size_t index) {
    prepare_thread_for_faults();
    BlockRunner own;
    uint64_t seen = 0;
    for (;;) {
      Grid *grid;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return launch_ != seen; });
        seen = launch_;
        if (index >= workers_) continue;
        grid = grid_;
      }
      runner = &own;
      own.begin(*grid);
      for (size_t i; (i = grid->next_block++) < grid->blocks() && !grid->error;) own.run_block(grid->order.empty() ? i : grid->order[i]);
      runner = nullptr;
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) finished_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::vector<std::thread> threads_;
  Grid *grid_ = nullptr;
  uint64_t launch_ = 0;
  unsigned workers_ = 0, busy_ = 0;
};

unsigned worker_count() {
#if defined(__SANITIZE_ADDRESS__) || defined(EMU_RACE)
  return 1;  // one set of static shared variables; one shadow memory
#else
  return settings.threads ? static_cast<unsigned>(settings.threads) : std::max(1u, std::thread::hardware_concurrency());
#endif
}

}  // namespace

int run_grid(Grid &grid) {
  static WorkerPool *pool = new WorkerPool;  // never destroyed: its threads outlive static destruction
  static uint32_t launches = 0;
  grid.id = ++launches;
  const size_t blocks = grid.blocks();
  if (settings.order != Order::natural) {
    grid.order.resize(blocks);
    for (size_t i = 0; i < blocks; i++) grid.order[i] = static_cast<uint32_t>(settings.order == Order::reverse ? blocks - 1 - i : i);
    uint64_t random = mix_seed(settings.seed + grid.id);
    if (settings.order == Order::random)
      for (size_t i = blocks; i > 1; i--) std::swap(grid.order[i - 1], grid.order[next_random(random) % i]);
  }
  install_fault_handler();
  pool->run(grid, static_cast<unsigned>(std::min<size_t>(worker_count(), blocks)));
  return grid.error;
}

}  // namespace emu
