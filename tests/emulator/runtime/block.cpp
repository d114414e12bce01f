#include "block.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "report.h"
#include "settings.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

thread_local uint3 threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;

namespace emu {

thread_local BlockRunner *runner = nullptr;

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kSharedAlignment = 128;
constexpr unsigned char kCanary = 0xcb;
std::atomic<uint32_t> next_block_serial{1};

char *map_memory(size_t bytes) {
  void *address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    perror("[cuda emulator] mmap");
    abort();
  }
  return static_cast<char *>(address);
}

// AddressSanitizer must be told of every change of stack. `fake` keeps the left stack's state, or is nullptr where it ends.
void switch_stack(Context &from, Context &to, void **fake, void *own_fake, const void *stack, size_t stack_bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, stack, stack_bytes);
  switch_context(from, to);
  __sanitizer_finish_switch_fiber(fake ? *fake : own_fake, nullptr, nullptr);
#else
  (void)fake, (void)own_fake, (void)stack, (void)stack_bytes;
  switch_context(from, to);
#endif
}

}  // namespace

BlockRunner::BlockRunner() {
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void *stack = nullptr;
  pthread_attr_getstack(&attributes, &stack, &worker_stack_bytes_);
  pthread_attr_destroy(&attributes);
  worker_stack_ = stack;
}

extern "C" void *__tls_get_addr(void *);

void BlockRunner::begin(Grid &launch) {
  grid = &launch;
  if (stack_bytes_ != settings.stack_bytes) {
    for (char *stack : stacks_) munmap(stack - kStackGuardBytes, stack_bytes_ + kStackGuardBytes);
    stacks_.clear();
    stack_bytes_ = settings.stack_bytes;
  }
  static_shared = static_shared_end = nullptr;
#ifndef __SANITIZE_ADDRESS__
  if (launch.tls_module && launch.tls_bytes) {
    unsigned long index[2] = {launch.tls_module, 0};
    static_shared = static_cast<char *>(__tls_get_addr(index));
    static_shared_end = static_shared + launch.tls_bytes;
  }
#endif
  lay_out_shared(launch.shared_bytes);
}

// Ends at a page that cannot be touched, so that an overrun faults; what alignment leaves before it holds a canary.
void BlockRunner::lay_out_shared(size_t bytes) {
  const size_t aligned = (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  const size_t mapped = (aligned + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (mapped + kPageBytes != shared_mapping_bytes_) {
    if (shared_mapping_) munmap(shared_mapping_, shared_mapping_bytes_);
    shared_mapping_bytes_ = mapped + kPageBytes;
    shared_mapping_ = map_memory(shared_mapping_bytes_);
    mprotect(shared_mapping_ + mapped, kPageBytes, PROT_NONE);
  }
  shared_bytes_ = bytes;
  shared = shared_mapping_ + mapped - aligned;
  shared_end = shared + bytes;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(shared, aligned);
  __asan_poison_memory_region(shared_end, aligned - bytes);
#else
  memset(shared_end, kCanary, aligned - bytes);
#endif
}

void BlockRunner::check_shared_tail() {
#ifndef __SANITIZE_ADDRESS__
  const size_t tail = (kSharedAlignment - shared_bytes_ % kSharedAlignment) % kSharedAlignment;
  for (size_t i = 0; i < tail; i++) {
    if (static_cast<unsigned char>(shared_end[i]) == kCanary) continue;
    int none = 0;
    if (grid->error.compare_exchange_strong(none, 719))
      report("%s wrote %zu bytes past the end of its %zu bytes of dynamic shared memory, block %u,%u,%u (launched at %s:%d)", grid->name.c_str(), i,
             shared_bytes_, blockIdx.x, blockIdx.y, blockIdx.z, grid->at.file, grid->at.line);
    memset(shared_end, kCanary, tail);
    return;
  }
#endif
}

void BlockRunner::run_block(size_t block) {
  const dim3 g = grid->grid, b = grid->block;
  gridDim = g;
  blockDim = b;
  blockIdx = make_uint3(static_cast<unsigned>(block % g.x), static_cast<unsigned>(block / g.x % g.y), static_cast<unsigned>(block / g.x / g.y));
  block_serial = next_block_serial++;
  random_ = mix_seed(settings.seed ^ (static_cast<uint64_t>(grid->id) << 32) ^ block);
  threads_ = live_ = grid->block_threads();
  arrived_ = 0;
  if (fibers_.size() < threads_) fibers_.resize(threads_);
  const unsigned warps = (threads_ + kWarpLanes - 1) / kWarpLanes;
  warp_live_.assign(warps, 0);
  warp_waiting_.assign(warps, 0);
  ready_.clear();
  ready_head_ = fresh_head_ = 0;
  fresh_.resize(threads_);
  for (unsigned i = 0; i < threads_; i++) {
    Fiber &fiber = fibers_[i];
    fiber.thread = make_uint3(i % b.x, i / b.x % b.y, i / b.x / b.y);
    fiber.linear = i;
    fiber.state = FiberState::fresh;
    fiber.stack = nullptr;
    fiber.barriers = fiber.warp_syncs = 0;
    fiber.async_group = 0;
    fiber.async_copies.clear();
    warp_live_[fiber.warp()] |= 1u << fiber.lane();
    fresh_[settings.order == Order::reverse ? threads_ - 1 - i : i] = &fiber;
  }
  // Shared memory starts as NaN: what is read before it is written shows.
  memset(shared, 0xff, shared_bytes_);
  if (static_shared) memset(static_shared, 0xff, static_cast<size_t>(static_shared_end - static_shared));

  Fiber *first = pick();
  resume(worker_, first);

  if (!grid->error && live_ > 0) report_deadlock();
  check_shared_tail();
  for (unsigned i = 0; i < threads_; i++)
    if (fibers_[i].stack) stacks_.push_back(fibers_[i].stack);
}

char *BlockRunner::take_stack() {
  char *stack;
  if (!stacks_.empty()) {
    stack = stacks_.back();
    stacks_.pop_back();
  } else {
    char *mapping = map_memory(stack_bytes_ + kStackGuardBytes);
    mprotect(mapping, kStackGuardBytes, PROT_NONE);
    stack = mapping + kStackGuardBytes;
  }
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack, stack_bytes_);
#endif
  return stack;
}

void BlockRunner::resume(Context &from, Fiber *next) {
  Fiber *leaving = current;
  if (next->state == FiberState::fresh) {
    next->stack = take_stack();
    next->sanitizer_stack = nullptr;
    prepare_context(next->context, next->stack, stack_bytes_, fiber_main);
  }
  next->state = FiberState::ready;
  current = next;
  threadIdx = next->thread;
  void **fake = !leaving ? &worker_sanitizer_stack_ : leaving->state == FiberState::done ? nullptr : &leaving->sanitizer_stack;
  switch_stack(from, next->context, fake, nullptr, next->stack, stack_bytes_);
}

void BlockRunner::return_to_worker(Context &from, Fiber *leaving) {
  current = nullptr;
  void **fake = leaving && leaving->state != FiberState::done ? &leaving->sanitizer_stack : nullptr;
  switch_stack(from, worker_, fake, nullptr, worker_stack_, worker_stack_bytes_);
}

Fiber *BlockRunner::pick() {
  const size_t ready = ready_.size() - ready_head_, fresh = fresh_.size() - fresh_head_;
  if (ready + fresh == 0) return nullptr;
  bool take_ready = ready > 0;
  if (settings.order == Order::random) {
    const size_t chosen = next_random(random_) % (ready + fresh);
    take_ready = chosen < ready;
    if (take_ready) std::swap(ready_[ready_head_], ready_[ready_head_ + chosen]);
    else std::swap(fresh_[fresh_head_], fresh_[fresh_head_ + chosen - ready]);
  }
  if (!take_ready) return fresh_[fresh_head_++];
  Fiber *next = ready_[ready_head_++];
  if (ready_head_ == ready_.size()) {
    ready_.clear();
    ready_head_ = 0;
  }
  return next;
}

void BlockRunner::make_ready(Fiber &fiber) {
  fiber.state = FiberState::ready;
  ready_.push_back(&fiber);
}

// The current fiber waits; its state says for what.
void BlockRunner::park() {
  Fiber *waiting = current;
  if (Fiber *next = pick()) resume(waiting->context, next);
  else return_to_worker(waiting->context, waiting);
}

void BlockRunner::fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  for (;;) {
    runner->grid->thread();
    runner->finish_current();
  }
}

// Ends the current fiber. Returns only where the next one is fresh: it runs on the same stack without a switch.
void BlockRunner::finish_current() {
  Fiber &fiber = *current;
  fiber.state = FiberState::done;
  live_--;
  warp_live_[fiber.warp()] &= ~(1u << fiber.lane());
  if (!fiber.async_copies.empty()) {
    int none = 0;
    if (grid->error.compare_exchange_strong(none, 719))
      report("%s ends with a cp.async of %s:%d that it never waited for, block %u,%u,%u thread %u,%u,%u", grid->name.c_str(), fiber.async_copies[0].at.file,
             fiber.async_copies[0].at.line, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  }
  if (arrived_ && arrived_ == live_) release_barrier();
  // Lanes that wait for this one must learn that it will not come.
  for (unsigned i = fiber.warp() * kWarpLanes; i < std::min(threads_, (fiber.warp() + 1) * kWarpLanes); i++)
    if (fibers_[i].state == FiberState::at_warp_op) resolve_warp(fiber.warp(), fibers_[i].mask);
  Fiber *next = pick();
  if (next && next->state == FiberState::fresh) {
    next->stack = fiber.stack;
    next->sanitizer_stack = nullptr;
    next->state = FiberState::ready;
    fiber.stack = nullptr;
    current = next;
    threadIdx = next->thread;
    return;
  }
  stacks_.push_back(fiber.stack);
  fiber.stack = nullptr;
  if (next) resume(fiber.context, next);
  else return_to_worker(fiber.context, &fiber);
  abort();  // nobody resumes a fiber that is done
}

void BlockRunner::fail(int error, const char *message) {
  int none = 0;
  if (grid->error.compare_exchange_strong(none, error))
    report("%s: %s, block %u,%u,%u thread %u,%u,%u (launched at %s:%d)", grid->name.c_str(), message, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
           threadIdx.y, threadIdx.z, grid->at.file, grid->at.line);
  Context abandoned;
  return_to_worker(abandoned, nullptr);
  abort();
}

void BlockRunner::release_barrier() {
  arrived_ = 0;
  released_votes_ = votes_;
  for (unsigned i = 0; i < threads_; i++) {
    fibers_[i].barriers++;
    if (fibers_[i].state == FiberState::at_barrier && &fibers_[i] != current) make_ready(fibers_[i]);
  }
}

Votes BlockRunner::barrier(int vote, Location at) {
  Fiber &fiber = *current;
  fiber.at = at;
  char message[512];
  if (settings.strict && live_ < threads_) {
    snprintf(message, sizeof message, "__syncthreads at %s:%d after %u of the block's %u threads have returned", at.file, at.line, threads_ - live_, threads_);
    fail(719, message);
  }
  if (arrived_ == 0) votes_ = {0, 1, 0};
  else if (settings.strict) {
    for (unsigned i = 0; i < threads_; i++) {
      const Fiber &other = fibers_[i];
      if (other.state != FiberState::at_barrier) continue;
      if (other.at.line != at.line || strcmp(other.at.file, at.file) != 0) {
        snprintf(message, sizeof message, "divergent __syncthreads: this thread at %s:%d, thread %u,%u,%u at line %d", at.file, at.line, other.thread.x,
                 other.thread.y, other.thread.z, other.at.line);
        fail(719, message);
      }
      break;
    }
  }
  votes_.count += vote != 0;
  votes_.all &= vote != 0;
  votes_.any |= vote != 0;
  if (++arrived_ == live_) {
    release_barrier();
  } else {
    fiber.state = FiberState::at_barrier;
    park();
  }
  return released_votes_;
}

void BlockRunner::report_deadlock() {
  int none = 0;
  if (!grid->error.compare_exchange_strong(none, 702)) return;
  std::string waiting;
  int shown = 0;
  for (unsigned i = 0; i < threads_ && shown < 4; i++) {
    const Fiber &fiber = fibers_[i];
    const bool same_as_last = i > 0 && fibers_[i - 1].state == fiber.state && fibers_[i - 1].at.line == fiber.at.line;
    if (fiber.state == FiberState::done || same_as_last) continue;
    char text[300];
    snprintf(text, sizeof text, "%s thread %u,%u,%u waits at %s %s:%d", shown ? ";" : "", fiber.thread.x, fiber.thread.y, fiber.thread.z,
             fiber.state == FiberState::at_barrier ? "__syncthreads" : "a warp operation", fiber.at.file, fiber.at.line);
    waiting += text;
    shown++;
  }
  report("%s: deadlock, block %u,%u,%u:%s (launched at %s:%d)", grid->name.c_str(), blockIdx.x, blockIdx.y, blockIdx.z, waiting.c_str(), grid->at.file,
         grid->at.line);
}

}  // namespace emu
