#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "api.h"
#include "report.h"
#include "settings.h"
#include "streams.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#define EMU_EXPORT __attribute__((visibility("default")))

namespace emu {

namespace {

constexpr size_t kPageBytes = 4096, kAlignment = 256;
constexpr unsigned char kCanary = 0xcb;

// An allocation ends, but for alignment to 256 bytes, at a page that cannot be touched. Its pages are never used again, so
// that a use after free faults as well. What is left of its first and last pages are its margins.
struct Allocation {
  uint64_t number;
  size_t bytes;
  char *pages;
  size_t page_bytes;
  int device;
  bool live;
};
struct Pinned {
  size_t bytes;
  bool registered;  // by cudaHostRegister: the memory is the caller's
};

std::map<uintptr_t, Allocation> allocations;  // by address; freed ones stay, to be named in reports
std::map<uintptr_t, Pinned> pinned;
uint64_t allocation_number = 0;
char *arena = nullptr, *arena_end = nullptr, *arena_top = nullptr;

uintptr_t number_of(const void *address) { return reinterpret_cast<uintptr_t>(address); }
size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

bool reserve_arena() {
  if (arena) return true;
  for (size_t bytes = size_t{1} << 42; bytes >= size_t{1} << 34; bytes >>= 2) {
    void *address = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) continue;
    arena = arena_top = static_cast<char *>(address);
    arena_end = arena + bytes;
    return true;
  }
  return false;
}

template <class Map> typename Map::iterator last_at_or_before(Map &map, uintptr_t address) {
  auto next = map.upper_bound(address);
  return next == map.begin() ? map.end() : std::prev(next);
}

uint64_t cost_of(size_t bytes) { return round_up(bytes, 512); }

void mark_margins(const Allocation &allocation, char *address) {
  char *const end = allocation.pages + allocation.page_bytes;
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(allocation.pages, static_cast<size_t>(address - allocation.pages));
  __asan_unpoison_memory_region(address, allocation.bytes);
  __asan_poison_memory_region(address + allocation.bytes, static_cast<size_t>(end - address) - allocation.bytes);
#else
  memset(allocation.pages, kCanary, static_cast<size_t>(address - allocation.pages));
  memset(address + allocation.bytes, kCanary, static_cast<size_t>(end - address) - allocation.bytes);
#endif
}

void check_margins_of(char *address, const Allocation &allocation) {
#ifndef __SANITIZE_ADDRESS__
  char *const end = allocation.pages + allocation.page_bytes;
  const auto broken = [](const char *from, const char *to) {
    return std::any_of(from, to, [](char byte) { return static_cast<unsigned char>(byte) != kCanary; });
  };
  const bool before = broken(allocation.pages, address), after = broken(address + allocation.bytes, end);
  if (!before && !after) return;
  report("something wrote %s allocation %llu (%zu bytes)", before ? "before the start of" : "past the end of", static_cast<unsigned long long>(allocation.number),
         allocation.bytes);
  mark_margins(allocation, address);
  Device &owner = device(allocation.device);
  if (!owner.sticky) owner.sticky = cudaErrorIllegalAddress;
#else
  (void)address, (void)allocation;
#endif
}

void retire(Allocation &allocation) {
  device(allocation.device).used_bytes -= cost_of(allocation.bytes);
  allocation.live = false;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(allocation.pages, allocation.page_bytes);
#endif
  mmap(allocation.pages, allocation.page_bytes, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

cudaError_t allocate(void **result, size_t bytes) {
  *result = nullptr;
  if (settings.fail_malloc && ++counters.mallocs == settings.fail_malloc) return cudaErrorMemoryAllocation;
  if (bytes == 0) return cudaSuccess;
  Device &owner = device(current_device());
  const uint64_t available = settings.vram_bytes - std::min(settings.vram_bytes, settings.reserved_bytes + owner.used_bytes);
  if (cost_of(bytes) > available || !reserve_arena()) return cudaErrorMemoryAllocation;
  const size_t page_bytes = round_up(bytes, kPageBytes);
  if (page_bytes + kPageBytes > static_cast<size_t>(arena_end - arena_top)) {
    report("the emulator has used up its address space: freed device memory is never used again");
    return cudaErrorMemoryAllocation;
  }
  char *const pages = arena_top;
  if (mprotect(pages, page_bytes, PROT_READ | PROT_WRITE) != 0) return cudaErrorMemoryAllocation;
  arena_top += page_bytes + kPageBytes;
  char *const address = pages + page_bytes - round_up(bytes, kAlignment);
  const Allocation allocation{++allocation_number, bytes, pages, page_bytes, current_device(), true};
  mark_margins(allocation, address);
  if (bytes <= settings.poison_bytes) memset(address, 0xff, bytes);
  allocations[number_of(address)] = allocation;
  owner.used_bytes += cost_of(bytes);
  owner.peak_bytes = std::max(owner.peak_bytes, owner.used_bytes);
  *result = address;
  return cudaSuccess;
}

}  // namespace

bool is_device_address(const void *address) { return static_cast<const char *>(address) >= arena && static_cast<const char *>(address) < arena_end; }

bool is_device_range(const void *address, size_t bytes, int wanted_device) {
  const auto found = last_at_or_before(allocations, number_of(address));
  if (found == allocations.end() || !found->second.live) return false;
  if (wanted_device >= 0 && found->second.device != wanted_device) return false;
  const size_t offset = number_of(address) - found->first;
  return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

bool is_pinned_range(const void *address, size_t bytes) {
  const auto found = last_at_or_before(pinned, number_of(address));
  if (found == pinned.end()) return false;
  const size_t offset = number_of(address) - found->first;
  return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

std::string describe_address(const void *address) {
  char text[200];
  if (!is_device_address(address)) {
    snprintf(text, sizeof text, "%s %p", is_pinned_range(address, 1) ? "page-locked host memory" : "host memory", address);
    return text;
  }
  const uintptr_t at = number_of(address);
  const auto before = last_at_or_before(allocations, at);
  if (before != allocations.end()) {
    const Allocation &a = before->second;
    const size_t offset = at - before->first;
    const auto number = static_cast<unsigned long long>(a.number);
    if (offset < a.bytes) snprintf(text, sizeof text, "%s allocation %llu (%zu bytes) at offset %zu", a.live ? "device" : "freed", number, a.bytes, offset);
    else snprintf(text, sizeof text, "device memory %zu bytes past the end of %sallocation %llu (%zu bytes)", offset - a.bytes, a.live ? "" : "freed ", number, a.bytes);
    if (a.live || offset < a.bytes + kPageBytes) return text;
  }
  snprintf(text, sizeof text, "device memory %p, which was never allocated", address);
  return text;
}

void check_margins() {
  for (auto &entry : allocations)
    if (entry.second.live) check_margins_of(reinterpret_cast<char *>(entry.first), entry.second);
}

void release_memory() {
  for (auto &entry : allocations)
    if (entry.second.live) retire(entry.second);
  allocations.clear();
  for (auto &entry : pinned)
    if (!entry.second.registered) free(reinterpret_cast<void *>(entry.first));
  pinned.clear();
  allocation_number = 0;
}

MemoryCounts count_memory() {
  MemoryCounts counts = {};
  for (auto &entry : allocations) {
    counts.allocations += entry.second.live;
    counts.allocated_bytes += entry.second.live ? entry.second.bytes : 0;
  }
  for (auto &entry : pinned) {
    counts.pinned++;
    counts.pinned_bytes += entry.second.bytes;
  }
  return counts;
}

}  // namespace emu

using namespace emu;

extern "C" {

EMU_EXPORT cudaError_t cudaMalloc(void **address, size_t bytes) {
  return device_call([=] { return allocate(address, bytes); });
}

EMU_EXPORT cudaError_t cudaFree(void *address) {
  return release_call([=] {
    if (!address) return cudaSuccess;
    synchronize_all();
    check_margins();
    const auto found = allocations.find(number_of(address));
    if (found == allocations.end() || !found->second.live) {
      report("cudaFree of %s", found == allocations.end() ? "an address that cudaMalloc never returned" : describe_address(address).c_str());
      return cudaErrorInvalidValue;
    }
    retire(found->second);
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) {
  *address = nullptr;
  return device_call([=] {
    if (flags & ~(cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined)) return cudaErrorInvalidValue;
    if (settings.fail_host_alloc && ++counters.host_allocs == settings.fail_host_alloc) return cudaErrorMemoryAllocation;
    if (bytes == 0) return cudaSuccess;
    if (posix_memalign(address, kPageBytes, bytes) != 0) return cudaErrorMemoryAllocation;
    pinned[number_of(*address)] = {bytes, false};
    return cudaSuccess;
  });
}
EMU_EXPORT cudaError_t cudaMallocHost(void **address, size_t bytes) { return cudaHostAlloc(address, bytes, cudaHostAllocDefault); }

EMU_EXPORT cudaError_t cudaFreeHost(void *address) {
  return release_call([=] {
    if (!address) return cudaSuccess;
    synchronize_all();
    const auto found = pinned.find(number_of(address));
    if (found == pinned.end() || found->second.registered) {
      report("cudaFreeHost of %s that cudaHostAlloc did not return or that is freed", describe_address(address).c_str());
      return cudaErrorInvalidValue;
    }
    pinned.erase(found);
    free(address);
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaHostRegister(void *address, size_t bytes, unsigned flags) {
  return device_call([=] {
    if (!address || bytes == 0 || is_device_address(address) || (flags & ~(cudaHostRegisterPortable | 2u | cudaHostRegisterReadOnly))) return cudaErrorInvalidValue;
    const auto next = pinned.lower_bound(number_of(address));
    if (is_pinned_range(address, 1) || (next != pinned.end() && next->first < number_of(address) + bytes)) return cudaErrorHostMemoryAlreadyRegistered;
    pinned[number_of(address)] = {bytes, true};
    return cudaSuccess;
  });
}
EMU_EXPORT cudaError_t cudaHostUnregister(void *address) {
  return release_call([=] {
    synchronize_all();
    const auto found = pinned.find(number_of(address));
    if (found == pinned.end() || !found->second.registered) return cudaErrorHostMemoryNotRegistered;
    pinned.erase(found);
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaHostGetDevicePointer(void **device_address, void *address, unsigned flags) {
  return device_call([=] {
    if (flags != 0 || !is_pinned_range(address, 1)) return cudaErrorInvalidValue;
    *device_address = address;  // one address space
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  return device_call([=] {
    const uint64_t taken = settings.reserved_bytes + device(current_device()).used_bytes;
    *total_bytes = settings.vram_bytes;
    *free_bytes = settings.vram_bytes - std::min(settings.vram_bytes, taken);
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *address) {
  return device_call([=] {
    void *const plain = const_cast<void *>(address);
    *attributes = {};
    attributes->device = -1;
    attributes->hostPointer = plain;
    if (is_device_range(address, 1)) {
      const int owner = last_at_or_before(allocations, number_of(address))->second.device;
      *attributes = {cudaMemoryTypeDevice, owner, plain, nullptr, {}};
    } else if (is_pinned_range(address, 1)) {
      *attributes = {cudaMemoryTypeHost, current_device(), plain, plain, {}};
    }
    return cudaSuccess;
  });
}

}  // extern "C"
