// Kernel launches: the limits of the device, then the grid as an operation of its stream.
#include "emu/launch.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>

#include "api.h"
#include "block.h"
#include "memory.h"
#include "report.h"
#include "settings.h"
#include "streams.h"
#include "symbols.h"

#ifdef EMU_RACE
#include "race.h"
#endif

#define EMU_EXPORT __attribute__((visibility("default")))

namespace emu {

namespace {

constexpr uint64_t kDefaultSharedBytes = 48 << 10;
std::map<const void *, uint64_t> dynamic_shared_limits;  // by cudaFuncSetAttribute

void refuse(const KernelLaunch &launch, const char *format, ...) __attribute__((format(printf, 2, 3)));
void refuse(const KernelLaunch &launch, const char *format, ...) {
  char reason[300];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  report("%s cannot be launched: %s (launched at %s:%d)", launch.name, reason, launch.at.file, launch.at.line);
}

cudaError_t check_limits(const KernelLaunch &launch) {
  const dim3 g = launch.grid, b = launch.block;
  const uint64_t threads = static_cast<uint64_t>(b.x) * b.y * b.z;
  if (threads == 0 || b.x > 1024 || b.y > 1024 || b.z > 64 || threads > 1024) {
    refuse(launch, "its blocks have %u x %u x %u threads, at most 1024 are allowed and 64 in z", b.x, b.y, b.z);
    return cudaErrorInvalidConfiguration;
  }
  if (!g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    refuse(launch, "its grid is %u x %u x %u, at most 2147483647 x 65535 x 65535 are allowed", g.x, g.y, g.z);
    return cudaErrorInvalidConfiguration;
  }
  if (threads > launch.max_block_threads) {
    refuse(launch, "its blocks have %u threads, its __launch_bounds__ allow %u", static_cast<unsigned>(threads), launch.max_block_threads);
    return cudaErrorLaunchFailure;
  }
  if (launch.static_shared_bytes > kDefaultSharedBytes) {
    refuse(launch, "it has %zu bytes of static shared memory, at most 49152 are allowed", launch.static_shared_bytes);
    return cudaErrorInvalidValue;
  }
  const auto raised = dynamic_shared_limits.find(launch.kernel);
  const uint64_t limit = raised != dynamic_shared_limits.end() ? raised->second : kDefaultSharedBytes - launch.static_shared_bytes;
  if (launch.dynamic_shared_bytes > limit) {
    refuse(launch, "it needs %zu bytes of dynamic shared memory beside %zu static ones, %llu are allowed%s", launch.dynamic_shared_bytes, launch.static_shared_bytes,
           static_cast<unsigned long long>(limit), raised == dynamic_shared_limits.end() ? "; more takes cudaFuncSetAttribute" : "");
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

int run(const KernelLaunch &launch, size_t tls_module, size_t tls_bytes, int device) {
  for (const void *pointer : launch.pointers) {
    // One past the end of an allocation is a fair argument: kernels take ends.
    if (!pointer || is_device_range(pointer, 0, device) || is_pinned_range(pointer, 0)) continue;
    report("%s: an argument points to %s (launched at %s:%d)", launch.name, describe_address(pointer).c_str(), launch.at.file, launch.at.line);
    return cudaErrorIllegalAddress;
  }
  Grid grid;
  grid.name = launch.name;
  grid.at = launch.at;
  grid.grid = launch.grid;
  grid.block = launch.block;
  grid.shared_bytes = launch.dynamic_shared_bytes + (launch.shared_in_one_buffer ? launch.static_shared_bytes : 0);
  grid.thread = launch.thread;
  grid.tls_module = tls_module;
  grid.tls_bytes = tls_bytes;
  return run_grid(grid);
}

}  // namespace

EMU_EXPORT cudaError_t enqueue_kernel(KernelLaunch launch) {
  return device_call([&launch] {
    const KernelSymbol symbol = launch.name ? KernelSymbol{launch.name, 0, 0, 0} : kernel_symbol(launch.kernel);
    const auto name = std::make_shared<std::string>(symbol.name);
    launch.static_shared_bytes += symbol.static_shared_bytes;
    launch.name = name->c_str();
    if (const cudaError_t error = check_limits(launch)) return error;
    const bool injected = settings.fail_launch && ++counters.launches == settings.fail_launch;
    const int device = current_device();
    const cudaStream_t stream = launch.stream;
    return enqueue(stream, [launch = std::move(launch), name, symbol, injected, device]() -> int {
      return injected ? settings.fail_error : run(launch, symbol.tls_module, symbol.tls_bytes, device);
    });
  });
}

// ---- what a running kernel calls

EMU_EXPORT Votes block_barrier(int vote, Location at) { return runner->barrier(vote, at); }
EMU_EXPORT uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int source_lane, Location at) {
  return runner->warp_op(op, mask, value, source_lane, nullptr, at);
}
EMU_EXPORT void warp_collective(void *mine, void (*resolve)(void **), Location at) {
  runner->warp_op(WarpOp::collective, ~0u, reinterpret_cast<uintptr_t>(mine), 0, resolve, at);
}
EMU_EXPORT int lane() { return static_cast<int>(runner->current->lane()); }
EMU_EXPORT void thread_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
EMU_EXPORT void *dynamic_shared() { return runner->shared; }
EMU_EXPORT void fail(int error, const char *format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  runner->fail(error, message);
}

EMU_EXPORT void async_copy(void *to, const void *from, int bytes, int valid_bytes, Location at) {
  const auto misaligned = [bytes](const void *address) { return reinterpret_cast<uintptr_t>(address) % static_cast<unsigned>(bytes) != 0; };
  if (misaligned(to) || (valid_bytes && misaligned(from))) fail(716, "cp.async at %s:%d: an address is not a multiple of %d", at.file, at.line, bytes);
  Fiber &fiber = *runner->current;
  fiber.async_copies.push_back({to, from, bytes, valid_bytes, fiber.async_group, at});
}
EMU_EXPORT void async_commit() { runner->current->async_group++; }
EMU_EXPORT void async_wait(int groups_left) {
  Fiber &fiber = *runner->current;
  size_t done = 0;
  for (; done < fiber.async_copies.size() && fiber.async_copies[done].group < fiber.async_group - groups_left; done++) {
    const AsyncCopy &copy = fiber.async_copies[done];
#ifdef EMU_RACE
    check_access(copy.from, static_cast<size_t>(copy.valid_bytes), false, false, nullptr);
    check_access(copy.to, static_cast<size_t>(copy.bytes), true, false, nullptr);
#endif
    memset(copy.to, 0, static_cast<size_t>(copy.bytes));
    if (copy.valid_bytes) memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid_bytes));
  }
  fiber.async_copies.erase(fiber.async_copies.begin(), fiber.async_copies.begin() + static_cast<ptrdiff_t>(done));
}

}  // namespace emu

using namespace emu;

extern "C" {

EMU_EXPORT cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  return device_call([=] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0) return cudaErrorInvalidValue;
    if (static_cast<uint64_t>(value) + kernel_symbol(kernel).static_shared_bytes > settings.shared_optin_bytes()) return cudaErrorInvalidValue;
    dynamic_shared_limits[kernel] = static_cast<uint64_t>(value);
    return cudaSuccess;
  });
}

// By threads and shared memory; registers are not known here.
EMU_EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int block_threads, size_t dynamic_shared_bytes) {
  return device_call([=] {
    cudaDeviceProp p;
    if (const cudaError_t error = cudaGetDeviceProperties(&p, current_device())) return error;
    if (block_threads < 1 || block_threads > p.maxThreadsPerBlock) return cudaErrorInvalidValue;
    const uint64_t shared = kernel_symbol(kernel).static_shared_bytes + dynamic_shared_bytes;
    const uint64_t by_threads = static_cast<uint64_t>(p.maxThreadsPerMultiProcessor / ((block_threads + 31) / 32 * 32));
    const uint64_t by_shared = shared ? p.sharedMemPerMultiprocessor / shared : by_threads;
    *blocks = static_cast<int>(std::min({by_threads, by_shared, static_cast<uint64_t>(p.maxBlocksPerMultiProcessor)}));
    return cudaSuccess;
  });
}

}  // extern "C"
