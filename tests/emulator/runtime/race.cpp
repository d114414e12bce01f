#include "race.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <unordered_map>

#include "block.h"
#include "memory.h"
#include "report.h"

// Two accesses of one byte by different CUDA threads, one of them a write, must be ordered:
//   in one block   by a __syncthreads, or in one warp by a __syncwarp, that both passed between them;
//   in two blocks  by nothing: only atomics may meet.
// What is kept of each byte is its latest write and its latest read, so that of three threads that touch it one pair may
// be missed. Barriers are counted, which takes a __syncwarp of part of a warp for one of the whole.
namespace emu {

namespace {

struct Access {
  uint32_t launch = 0, block = 0, barriers = 0, warp_syncs = 0;
  uint16_t thread = 0;
  bool atomic = false, by_many = false;  // read by several threads since the last barrier
};
struct Byte {
  Access write, read;
};
constexpr size_t kPageBytes = 1024;
struct Page {
  Byte bytes[kPageBytes];
};

std::unordered_map<uintptr_t, std::unique_ptr<Page>> shadow;  // one worker thread in this build
uint32_t shadow_launch = 0;

Byte &shadow_of(uintptr_t address) {
  auto &page = shadow[address / kPageBytes];
  if (!page) page = std::make_unique<Page>();
  return page->bytes[address % kPageBytes];
}

bool is_ordered(const Access &earlier, const Access &now, bool shared) {
  if (earlier.launch != now.launch) return true;
  if (earlier.block != now.block) return shared;
  if (earlier.barriers != now.barriers) return true;
  if (earlier.by_many) return false;
  if (earlier.thread == now.thread) return true;
  return earlier.thread / kWarpLanes == now.thread / kWarpLanes && earlier.warp_syncs != now.warp_syncs;
}

std::string describe_code(const void *code) {
  Dl_info info;
  if (!code || !dladdr(code, &info) || !info.dli_fname) return "";
  const char *slash = strrchr(info.dli_fname, '/');
  char text[300];
  snprintf(text, sizeof text, " (%s+0x%zx)", slash ? slash + 1 : info.dli_fname,
           static_cast<size_t>(static_cast<const char *>(code) - static_cast<const char *>(info.dli_fbase)) - 1);
  return text;
}

}  // namespace

void check_access(const void *address, size_t bytes, bool write, bool atomic, const void *code) {
  BlockRunner *own = runner;
  if (!own || !own->current || bytes == 0) return;
  const char *at = static_cast<const char *>(address);
  const char *verb = write ? "write" : "read";
  char message[500];
  const bool dynamic_shared = at >= own->shared && at < own->shared_end;
  const bool static_shared = at >= own->static_shared && at < own->static_shared_end;
  const bool shared = dynamic_shared || static_shared;
  if (at >= own->shared_end && at < own->shared_end + 8192) {
    snprintf(message, sizeof message, "%s of %zu bytes, %zu past the end of dynamic shared memory%s", verb, bytes, static_cast<size_t>(at - own->shared_end),
             describe_code(code).c_str());
    own->fail(700, message);
  }
  if (!shared && !is_device_address(address)) return;  // its own stack, a constant table, page-locked memory
  if ((bytes & (bytes - 1)) == 0 && bytes <= 16 && (reinterpret_cast<uintptr_t>(address) & (bytes - 1))) {
    snprintf(message, sizeof message, "misaligned %s of %zu bytes at %s%s", verb, bytes, shared ? "shared memory" : describe_address(address).c_str(),
             describe_code(code).c_str());
    own->fail(716, message);
  }
  if (!shared && !is_device_range(address, bytes)) {
    snprintf(message, sizeof message, "%s of %zu bytes at %s%s", verb, bytes, describe_address(address).c_str(), describe_code(code).c_str());
    own->fail(700, message);
  }

  if (shadow_launch != own->grid->id) {  // launches are ordered by their streams; nothing of the last one matters
    shadow.clear();
    shadow_launch = own->grid->id;
  }
  const Fiber &fiber = *own->current;
  const Access now = {own->grid->id, own->block_serial, fiber.barriers, fiber.warp_syncs, static_cast<uint16_t>(fiber.linear), atomic, false};
  for (size_t i = 0; i < bytes; i++) {
    Byte &byte = shadow_of(reinterpret_cast<uintptr_t>(address) + i);
    const Access *conflict = nullptr;
    if (!is_ordered(byte.write, now, shared) && !(atomic && byte.write.atomic)) conflict = &byte.write;
    else if (write && !is_ordered(byte.read, now, shared) && !(atomic && byte.read.atomic)) conflict = &byte.read;
    if (conflict) {
      const Access earlier = *conflict;
      std::string where = dynamic_shared  ? "dynamic shared memory at offset " + std::to_string(at - own->shared)
                          : static_shared ? "static shared memory"
                                          : describe_address(address);
      snprintf(message, sizeof message, "race: %s of %zu bytes of %s after a %s by %s%u with no barrier between%s", verb, bytes, where.c_str(),
               conflict == &byte.write ? "write" : "read", earlier.block != own->block_serial ? "another block's thread " : "thread ", earlier.thread,
               describe_code(code).c_str());
      own->fail(719, message);
    }
    if (write) {
      byte.write = now;
    } else {
      const bool another = byte.read.launch == now.launch && byte.read.block == now.block && byte.read.barriers == now.barriers &&
                           (byte.read.thread != now.thread || byte.read.by_many);
      byte.read = now;
      byte.read.by_many = another;
    }
  }
}

}  // namespace emu

// ---- the functions that instrumented code calls (gcc's tsan.cc, LLVM's ThreadSanitizer.cpp)

using emu::check_access;

#define EMU_HOOK extern "C" __attribute__((visibility("default")))
#define EMU_CODE __builtin_return_address(0)
#define EMU_ACCESS_HOOKS(n)                                                                                                \
  EMU_HOOK void __tsan_read##n(void *p) { check_access(p, n, false, false, EMU_CODE); }                                    \
  EMU_HOOK void __tsan_write##n(void *p) { check_access(p, n, true, false, EMU_CODE); }                                    \
  EMU_HOOK void __tsan_unaligned_read##n(void *p) { check_access(p, n, false, false, EMU_CODE); }                          \
  EMU_HOOK void __tsan_unaligned_write##n(void *p) { check_access(p, n, true, false, EMU_CODE); }                          \
  EMU_HOOK void __tsan_volatile_read##n(void *p) { check_access(p, n, false, false, EMU_CODE); }                           \
  EMU_HOOK void __tsan_volatile_write##n(void *p) { check_access(p, n, true, false, EMU_CODE); }
EMU_ACCESS_HOOKS(1)
EMU_ACCESS_HOOKS(2)
EMU_ACCESS_HOOKS(4)
EMU_ACCESS_HOOKS(8)
EMU_ACCESS_HOOKS(16)

EMU_HOOK void __tsan_read_range(void *p, size_t bytes) { check_access(p, bytes, false, false, EMU_CODE); }
EMU_HOOK void __tsan_write_range(void *p, size_t bytes) { check_access(p, bytes, true, false, EMU_CODE); }
EMU_HOOK void __tsan_init() {}
EMU_HOOK void __tsan_func_entry(void *) {}
EMU_HOOK void __tsan_func_exit() {}
EMU_HOOK void __tsan_vptr_read(void *) {}
EMU_HOOK void __tsan_vptr_update(void *, void *) {}
EMU_HOOK void __tsan_atomic_thread_fence(int) {}

#define EMU_ATOMIC_HOOKS(bits, T)                                                                                          \
  EMU_HOOK T __tsan_atomic##bits##_load(const volatile T *p, int) {                                                        \
    check_access(const_cast<const T *>(p), sizeof(T), false, true, EMU_CODE);                                              \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                                           \
  }                                                                                                                        \
  EMU_HOOK void __tsan_atomic##bits##_store(volatile T *p, T value, int) {                                                 \
    check_access(const_cast<T *>(p), sizeof(T), true, true, EMU_CODE);                                                     \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                                          \
  }                                                                                                                        \
  EMU_HOOK T __tsan_atomic##bits##_exchange(volatile T *p, T value, int) {                                                 \
    check_access(const_cast<T *>(p), sizeof(T), true, true, EMU_CODE);                                                     \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                                                \
  }                                                                                                                        \
  EMU_HOOK int __tsan_atomic##bits##_compare_exchange_strong(volatile T *p, T *expected, T value, int, int) {              \
    check_access(const_cast<T *>(p), sizeof(T), true, true, EMU_CODE);                                                     \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                     \
  }
EMU_ATOMIC_HOOKS(8, uint8_t)
EMU_ATOMIC_HOOKS(32, uint32_t)
EMU_ATOMIC_HOOKS(64, uint64_t)
