// What every call of the runtime API begins with: one lock, the driver and the state of the calling thread's device.
#pragma once

#include <map>
#include <mutex>

#include "emu/runtime_api.h"

namespace emu {

// One emulated GPU. All state of the runtime is guarded by api_mutex().
struct Device {
  uint64_t used_bytes = 0, peak_bytes = 0;
  cudaError_t sticky = cudaSuccess;  // once the device has failed, every call answers this
};

struct Counters {
  uint64_t mallocs = 0, host_allocs = 0, launches = 0, syncs = 0;  // since the last configuration that concerns them
  uint64_t unpinned_copies = 0;
};

extern Counters counters;

std::recursive_mutex &api_mutex();
Device &device(int index);
int current_device();
// Keeps a failure as the thread's last error, as cudaGetLastError reports it, and returns it.
cudaError_t remember(cudaError_t error);
// Forgets sticky and last errors.
void forget_errors();
void release_everything();

// The body of a call that works on a healthy device; `body` returns a cudaError_t.
template <class Body> cudaError_t device_call(Body body);
template <class Body> cudaError_t release_call(Body body);
// The body of a call that works without one: only the driver is asked for.
template <class Body> cudaError_t driver_call(Body body);

// Reads CUDA_EMU once; ends the process where it is not understood.
void initialize();
bool has_driver();

template <class Body> cudaError_t driver_call(Body body) {
  std::lock_guard<std::recursive_mutex> lock(api_mutex());
  initialize();
  if (!has_driver()) return remember(cudaErrorInsufficientDriver);
  return remember(body());
}

extern thread_local bool in_host_function;
cudaError_t refuse_host_function();
int device_count();

// The body of a call that gives something back: it is done on a failed device too, so that what is left counts as leaked.
template <class Body> cudaError_t release_call(Body body) {
  return driver_call([&body]() -> cudaError_t {
    if (device_count() == 0) return cudaErrorNoDevice;
    if (in_host_function) return refuse_host_function();
    const cudaError_t error = body();
    return error ? error : device(current_device()).sticky;
  });
}

template <class Body> cudaError_t device_call(Body body) {
  return driver_call([&body]() -> cudaError_t {
    if (device_count() == 0) return cudaErrorNoDevice;
    if (in_host_function) return refuse_host_function();
    if (const cudaError_t sticky = device(current_device()).sticky) return sticky;
    return body();
  });
}

}  // namespace emu
