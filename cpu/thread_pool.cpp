#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdio>

namespace airk {

namespace {
constexpr int64_t kSpinMicroseconds = 40;
}

int64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

void yield_to_readers() {
#if defined(__linux__)
  // On Linux a thread has a priority of its own. Where it cannot be lowered, nothing is lost.
  setpriority(PRIO_PROCESS, 0, 5);
#endif
}

int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

ThreadPool::ThreadPool(int threads) {
  // With more threads than processors a spinning helper would hold back the one that works.
  spin_us_ = threads <= usable_processors() ? kSpinMicroseconds : 0;
  helpers_.reserve(static_cast<size_t>(threads - 1));
  try {
    for (int i = 1; i < threads; i++) helpers_.emplace_back([this, i] { help(i); });
  } catch (...) {
    stopping_ = true;
    {
      std::lock_guard<std::mutex> lock(sleep_mutex_);
      wake_.notify_all();
    }
    for (auto &helper : helpers_) helper.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  {
    std::lock_guard<std::mutex> lock(sleep_mutex_);
    wake_.notify_all();
  }
  for (auto &helper : helpers_) helper.join();
}

bool ThreadPool::try_join(uint32_t *seen) {
  uint64_t state = state_.load(std::memory_order_acquire);
  while (state & kOpen && static_cast<uint32_t>(state >> 32) != *seen) {
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) {
      *seen = static_cast<uint32_t>(state >> 32);
      return true;
    }
  }
  return false;
}

void ThreadPool::help(int thread) {
#if defined(__linux__)
  char name[16];
  std::snprintf(name, sizeof(name), "airk-pool-%d", thread);
  pthread_setname_np(pthread_self(), name);
  yield_to_readers();
#endif
  uint32_t seen = 0;
  const auto news = [&] {
    const uint64_t state = state_.load(std::memory_order_acquire);
    return stopping_.load(std::memory_order_relaxed) || (state & kOpen && static_cast<uint32_t>(state >> 32) != seen);
  };
  for (;;) {
    if (!spin_until(news, spin_us_)) {
      std::unique_lock<std::mutex> lock(sleep_mutex_);
      // Counted before the last look at state_, as run() opens state_ before its look at the count: one of the two sees the other.
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      while (!(stopping_ || (state_.load(std::memory_order_seq_cst) & kOpen && news()))) wake_.wait(lock);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (stopping_) return;
    if (!try_join(&seen)) continue;
    work(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::work(int thread) {
  try {
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= items_) return;
      (*body_)(begin, begin + grain_ < items_ ? begin + grain_ : items_, thread);
    }
  } catch (...) {
    threw_ = true;
    next_.store(items_, std::memory_order_relaxed);
  }
}

void ThreadPool::wake_for(int64_t runs) {
  const int64_t sleepers = sleepers_.load(std::memory_order_seq_cst), awake = static_cast<int64_t>(helpers_.size()) - sleepers;
  // Each wake-up is a system call on the caller's way: no more than there are runs for.
  const int64_t wanted = std::min(sleepers, runs - awake);
  if (wanted <= 0) return;
  // A helper that counted itself has either gone to sleep by now or sees the open range.
  { std::lock_guard<std::mutex> lock(sleep_mutex_); }
  if (wanted == sleepers) {
    wake_.notify_all();
  } else {
    for (int64_t i = 0; i < wanted; i++) wake_.notify_one();
  }
}

bool ThreadPool::run(int64_t items, int64_t grain, const RangeBody &body) {
  if (items <= 0) return true;
  if (grain < 1) grain = 1;
  if (items <= grain || helpers_.empty()) {
    try {
      for (int64_t begin = 0; begin < items; begin += grain) body(begin, begin + grain < items ? begin + grain : items, 0);
      return true;
    } catch (...) {
      return false;
    }
  }
  std::lock_guard<std::mutex> turn(turn_);
  items_ = items;
  grain_ = grain;
  body_ = &body;
  threw_ = false;
  next_.store(0, std::memory_order_relaxed);
  // Nobody is inside here, so the count is 0. Generation 0 is what a new helper has seen: skip it.
  uint32_t generation = static_cast<uint32_t>(state_.load(std::memory_order_relaxed) >> 32) + 1;
  if (generation == 0) generation = 1;
  state_.store(static_cast<uint64_t>(generation) << 32 | kOpen, std::memory_order_seq_cst);
  wake_for((items - 1) / grain);
  work(0);
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  const auto alone = [&] { return (state_.load(std::memory_order_acquire) & (kOpen - 1)) == 0; };
  while (!spin_until(alone, kSpinMicroseconds)) sched_yield();
  return !threw_;
}

}  // namespace airk
