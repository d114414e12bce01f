// Device memory by cudaMalloc, host memory page-locked.
#include <cstring>

#include "../cpu/memory_info.h"
#include "context.h"

namespace airk {

namespace {

constexpr uint64_t kAlignment = 4096;

cudaError_t take_device(void **memory, uint64_t bytes) { return cudaMalloc(memory, bytes); }
cudaError_t take_host(void **memory, uint64_t bytes) { return cudaHostAlloc(memory, bytes, cudaHostAllocPortable); }

// Frees after a failure, whose error is the one to report.
template <class Free> void give_back(Free free_memory, void *memory) {
  static_cast<void>(free_memory(memory));
  static_cast<void>(cudaGetLastError());
}

// CUDA promises less than 4096: where it gave less, a larger block has an aligned part.
template <class Take, class Free>
cudaError_t take_aligned(Take take, Free free_memory, uint64_t bytes, void **memory, uint64_t *aligned) {
  cudaError_t error = take(memory, bytes);
  if (error == cudaSuccess && reinterpret_cast<uintptr_t>(*memory) % kAlignment != 0) {
    give_back(free_memory, *memory);
    error = take(memory, bytes + kAlignment);
  }
  if (error != cudaSuccess) return error;
  *aligned = (reinterpret_cast<uintptr_t>(*memory) + kAlignment - 1) / kAlignment * kAlignment;
  return cudaSuccess;
}

template <class Take, class Free>
airk_status reserve(airk_context *context, uint64_t bytes, uint64_t free_bytes, const char *what, Take take, Free free_memory,
                    std::map<uint64_t, void *> &blocks, uint64_t *address) {
  void *memory = nullptr;
  uint64_t aligned = 0;
  const bool fits = bytes <= free_bytes;
  const cudaError_t error = fits ? take_aligned(take, free_memory, bytes, &memory, &aligned) : cudaErrorMemoryAllocation;
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot reserve %llu bytes of %s memory: %llu are free",
                static_cast<unsigned long long>(bytes), what, static_cast<unsigned long long>(free_bytes));
  }
  if (error != cudaSuccess) return fail_cuda(context, "reserve memory", error);
  try {
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    blocks.emplace(aligned, memory);
  } catch (...) {
    give_back(free_memory, memory);
    throw;
  }
  *address = aligned;
  return AIRK_OK;
}

template <class Free>
airk_status release(airk_context *context, uint64_t address, const char *what, Free free_memory, std::map<uint64_t, void *> &blocks) {
  if (address == 0) return AIRK_OK;
  void *memory;
  {
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    const auto found = blocks.find(address);
    if (found == blocks.end()) {
      return fail(context, AIRK_INVALID, "Cannot free %s memory at 0x%llx: nothing is reserved there", what,
                  static_cast<unsigned long long>(address));
    }
    memory = found->second;
    blocks.erase(found);
  }
  airk_status status = use_device(context);
  if (status != AIRK_OK) return status;
  const cudaError_t error = free_memory(memory);
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : fail_cuda(context, "free memory", error);
}

airk_status refuse_nothing(airk_context *context, const char *what) {
  return fail(context, AIRK_INVALID, "Cannot reserve %s memory: 0 bytes asked for, required is 1 or more", what);
}

airk_status free_device_bytes(airk_context *context, size_t *free_bytes, size_t *total_bytes) {
  const airk_status status = use_device(context);
  if (status != AIRK_OK) return status;
  const cudaError_t error = cudaMemGetInfo(free_bytes, total_bytes);
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : fail_cuda(context, "read the device's memory", error);
}

cudaError_t free_device(void *memory) { return cudaFree(memory); }
cudaError_t free_host(void *memory) { return cudaFreeHost(memory); }

}  // namespace

void free_blocks(airk_context *context) {
  for (const auto &block : context->device_blocks) static_cast<void>(cudaFree(block.second));
  for (const auto &block : context->host_blocks) static_cast<void>(cudaFreeHost(block.second));
}

}  // namespace airk

using airk::guarded;

extern "C" airk_status airk_memory_info(airk_context *context, uint64_t *free_bytes, uint64_t *total_bytes) {
  if (!context || !free_bytes || !total_bytes) return AIRK_INVALID;
  size_t free_now = 0, total = 0;
  const airk_status status = airk::free_device_bytes(context, &free_now, &total);
  *free_bytes = free_now;
  *total_bytes = total;
  return status;
}

extern "C" airk_status airk_device_alloc(airk_context *context, uint64_t bytes, airk_ptr *address) {
  if (!context || !address) return AIRK_INVALID;
  *address = 0;
  if (bytes == 0) return airk::refuse_nothing(context, "device");
  return guarded(context, [&] {
    size_t free_now = 0, total = 0;
    const airk_status status = airk::free_device_bytes(context, &free_now, &total);
    if (status != AIRK_OK) return status;
    return airk::reserve(context, bytes, free_now, "device", airk::take_device, airk::free_device, context->device_blocks, address);
  });
}

extern "C" airk_status airk_device_free(airk_context *context, airk_ptr address) {
  if (!context) return AIRK_INVALID;
  return guarded(context, [&] { return airk::release(context, address, "device", airk::free_device, context->device_blocks); });
}

extern "C" airk_status airk_host_alloc(airk_context *context, uint64_t bytes, void **address) {
  if (!context || !address) return AIRK_INVALID;
  *address = nullptr;
  if (bytes == 0) return airk::refuse_nothing(context, "host");
  return guarded(context, [&] {
    airk_status status = airk::use_device(context);
    if (status != AIRK_OK) return status;
    // Linux promises more memory than there is and kills the process that takes it up, so ask first.
    const airk::MemoryInfo memory = airk::read_memory_info();
    uint64_t at = 0;
    status = airk::reserve(context, bytes, memory.free_bytes, "host", airk::take_host, airk::free_host, context->host_blocks, &at);
    if (status != AIRK_OK) return status;
    *address = airk::at<void>(at);
    std::memset(*address, 0, bytes);
    return status;
  });
}

extern "C" airk_status airk_host_free(airk_context *context, void *address) {
  if (!context) return AIRK_INVALID;
  return guarded(context, [&] {
    return airk::release(context, reinterpret_cast<uintptr_t>(address), "host", airk::free_host, context->host_blocks);
  });
}
