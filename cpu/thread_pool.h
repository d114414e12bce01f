// A pool whose threads share one range at a time. The caller works along as thread 0.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime.h"

namespace airk {

// Tells a loop that polls memory apart from one that computes: frees the sibling's execution units, saves power.
inline void spin_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Polls `ready` for a bounded time before its caller turns to sleep; returns whether it came true. Waking a sleeping thread
// costs tens of microseconds, most operations of a decode pass are shorter than that.
template <class Ready>
bool spin_until(Ready ready, int64_t microseconds);

int64_t monotonic_ns();

// Processors that this process may run on.
int usable_processors();

// Lets every other thread of the process go first: whoever starts the next read is done in microseconds, and meanwhile the disk waits.
void yield_to_readers();

class ThreadPool {
 public:
  // Throws std::system_error where threads cannot be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // See parallel_for in runtime.h. Returns false where the body threw; the range is then incomplete.
  // Calls from several threads take turns. Must not be called from within a body.
  bool run(int64_t items, int64_t grain, const RangeBody &body);

 private:
  void help(int thread);
  void work(int thread);
  bool try_join(uint32_t *seen);
  void wake_for(int64_t runs);

  // A helper takes part by raising the count of those inside, only while the range is open; the caller closes it and waits for
  // those inside alone. So a helper that sleeps, or that the kernel has put aside, delays nobody.
  // state_: generation << 32 | open << 31 | helpers inside.
  static constexpr uint64_t kOpen = 1ull << 31;
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) int64_t items_ = 0;
  int64_t grain_ = 1;
  const RangeBody *body_ = nullptr;
  std::atomic<bool> threw_{false};

  std::mutex turn_;
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  int64_t spin_us_ = 0;
  std::vector<std::thread> helpers_;
};

template <class Ready>
bool spin_until(Ready ready, int64_t microseconds) {
  if (ready()) return true;
  if (microseconds <= 0) return false;
  const int64_t deadline = monotonic_ns() + microseconds * 1000;
  for (;;) {
    for (int i = 0; i < 8; i++) {
      spin_pause();
      if (ready()) return true;
    }
    if (monotonic_ns() >= deadline) return false;
  }
}

}  // namespace airk
