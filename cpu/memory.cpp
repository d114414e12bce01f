// Memory: the CPU twin's device memory and host memory are the same.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "context.h"
#include "memory_info.h"

namespace airk {

namespace {

constexpr uint64_t kPage = 4096, kHugePage = 2 << 20;
// What one thread brings in at a time.
constexpr uint64_t kPopulateBytes = 16 << 20;

// With instrumented code, malloc's red zones start right behind the last byte, a mapping's would not.
#if defined(__SANITIZE_ADDRESS__)
void *map_memory(airk_context *, uint64_t bytes) {
  void *memory = nullptr;
  if (posix_memalign(&memory, kPage, bytes) != 0) return nullptr;
  std::memset(memory, 0, bytes);
  return memory;
}

uint64_t mapped_bytes(uint64_t bytes) { return bytes; }
void unmap_memory(uintptr_t address, const Block &) { std::free(reinterpret_cast<void *>(address)); }
#else

uint64_t mapped_bytes(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Brings pages in, so that reads into them and the first use do not pay for it.
bool populate(uint8_t *memory, uint64_t bytes) {
#if defined(MADV_POPULATE_WRITE)
  constexpr int kPopulateWrite = MADV_POPULATE_WRITE;
#else
  constexpr int kPopulateWrite = 23;
#endif
  if (madvise(memory, bytes, kPopulateWrite) == 0) return true;
  if (errno == ENOMEM) return false;
  // Kernels before 5.14 do not know it.
  for (uint64_t i = 0; i < bytes; i += kPage) const_cast<volatile uint8_t *>(memory)[i] = 0;
  return true;
}

void *map_memory(airk_context *context, uint64_t bytes) {
  const bool huge = bytes >= kHugePage;
  const uint64_t length = mapped_bytes(bytes), reserved = huge ? length + kHugePage : length;
  void *mapped = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  uint8_t *begin = static_cast<uint8_t *>(mapped);
  if (huge) {
    // mmap aligns to small pages only: cut a huge-page-aligned part out.
    const uint64_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
    if (before) munmap(begin, before);
    begin += before;
    if (reserved - before > length) munmap(begin + length, reserved - before - length);
#if defined(MADV_HUGEPAGE)
    madvise(begin, length, MADV_HUGEPAGE);
#endif
  }
  std::atomic<bool> whole{true};
  const int64_t parts = static_cast<int64_t>((length + kPopulateBytes - 1) / kPopulateBytes);
  parallel_for(context, parts, 1, [&](int64_t first, int64_t last, int) {
    const uint64_t from = static_cast<uint64_t>(first) * kPopulateBytes;
    const uint64_t to = static_cast<uint64_t>(last) * kPopulateBytes;
    if (!populate(begin + from, (to < length ? to : length) - from)) whole = false;
  });
  if (whole) return begin;
  munmap(begin, length);
  return nullptr;
}

void unmap_memory(uintptr_t address, const Block &block) { munmap(reinterpret_cast<void *>(address), block.bytes); }
#endif

airk_status reserve(airk_context *context, uint64_t bytes, const char *what, uint64_t *address) {
  if (bytes == 0) return fail(context, AIRK_INVALID, "Cannot reserve %s memory: 0 bytes asked for, required is 1 or more", what);
  // Linux promises more memory than there is and kills the process that takes it up, so ask first.
  const MemoryInfo memory = read_memory_info();
  if (bytes > memory.free_bytes) {
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot reserve %llu bytes of %s memory: %llu are free",
                static_cast<unsigned long long>(bytes), what, static_cast<unsigned long long>(memory.free_bytes));
  }
  void *mapped = map_memory(context, bytes);
  if (!mapped) {
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot reserve %llu bytes of %s memory: the system refused",
                static_cast<unsigned long long>(bytes), what);
  }
  const uintptr_t at = reinterpret_cast<uintptr_t>(mapped);
  const Block block{mapped_bytes(bytes)};
  try {
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->blocks.emplace(at, block);
  } catch (...) {
    unmap_memory(at, block);
    throw;
  }
  *address = at;
  return AIRK_OK;
}

airk_status release(airk_context *context, uint64_t address, const char *what) {
  if (address == 0) return AIRK_OK;
  Block block;
  {
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    const auto found = context->blocks.find(static_cast<uintptr_t>(address));
    if (found == context->blocks.end()) {
      return fail(context, AIRK_INVALID, "Cannot free %s memory at 0x%llx: nothing is reserved there", what,
                  static_cast<unsigned long long>(address));
    }
    block = found->second;
    context->blocks.erase(found);
  }
  unmap_memory(static_cast<uintptr_t>(address), block);
  return AIRK_OK;
}

}  // namespace

void release_blocks(airk_context *context) {
  for (const auto &[address, block] : context->blocks) unmap_memory(address, block);
  context->blocks.clear();
}

}  // namespace airk

using airk::guarded;

extern "C" airk_status airk_memory_info(airk_context *context, uint64_t *free_bytes, uint64_t *total_bytes) {
  if (!context || !free_bytes || !total_bytes) return AIRK_INVALID;
  return guarded(context, [&] {
    const airk::MemoryInfo memory = airk::read_memory_info();
    *free_bytes = memory.free_bytes;
    *total_bytes = memory.total_bytes;
    return AIRK_OK;
  });
}

extern "C" airk_status airk_device_alloc(airk_context *context, uint64_t bytes, airk_ptr *address) {
  if (!context || !address) return AIRK_INVALID;
  *address = 0;
  return guarded(context, [&] { return airk::reserve(context, bytes, "device", address); });
}

extern "C" airk_status airk_device_free(airk_context *context, airk_ptr address) {
  if (!context) return AIRK_INVALID;
  return guarded(context, [&] { return airk::release(context, address, "device"); });
}

extern "C" airk_status airk_host_alloc(airk_context *context, uint64_t bytes, void **address) {
  if (!context || !address) return AIRK_INVALID;
  *address = nullptr;
  return guarded(context, [&] {
    uint64_t at = 0;
    const airk_status status = airk::reserve(context, bytes, "host", &at);
    *address = airk::at<void>(at);
    return status;
  });
}

extern "C" airk_status airk_host_free(airk_context *context, void *address) {
  if (!context) return AIRK_INVALID;
  return guarded(context, [&] { return airk::release(context, reinterpret_cast<uintptr_t>(address), "host"); });
}
