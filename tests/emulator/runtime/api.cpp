// Devices, their properties, and errors.
#include "api.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "report.h"
#include "settings.h"

#define EMU_EXPORT __attribute__((visibility("default")))

namespace emu {

Counters counters;
thread_local bool in_host_function = false;

namespace {
thread_local int current = 0;
thread_local cudaError_t last_error = cudaSuccess;
std::map<int, Device> devices;
}  // namespace

std::recursive_mutex &api_mutex() {
  static std::recursive_mutex *mutex = new std::recursive_mutex;  // never destroyed: other libraries' destructors call in
  return *mutex;
}

Device &device(int index) { return devices[index]; }
int current_device() { return current; }
bool has_driver() { return settings.driver; }
int device_count() { return settings.devices; }

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

void forget_errors() {
  for (auto &entry : devices) entry.second.sticky = cudaSuccess;
  last_error = cudaSuccess;
}

cudaError_t refuse_host_function() {
  report("a function given to cudaLaunchHostFunc calls the CUDA runtime, which is not permitted");
  return cudaErrorNotPermitted;
}

void initialize() {
  static bool done = false;
  if (done) return;
  done = true;
  const std::string error = configure(getenv("CUDA_EMU"));
  if (error.empty()) return;
  fprintf(stderr, "%s\n", error.c_str());
  exit(2);
}

}  // namespace emu

using namespace emu;

extern "C" {

EMU_EXPORT cudaError_t cudaDriverGetVersion(int *version) {
  std::lock_guard<std::recursive_mutex> lock(api_mutex());
  initialize();
  *version = has_driver() ? 13000 : 0;
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaGetDeviceCount(int *count) {
  *count = 0;
  return driver_call([=] {
    *count = device_count();
    return *count ? cudaSuccess : cudaErrorNoDevice;
  });
}
EMU_EXPORT cudaError_t cudaGetDevice(int *index) {
  return driver_call([=] {
    *index = current;
    return device_count() ? cudaSuccess : cudaErrorNoDevice;
  });
}
EMU_EXPORT cudaError_t cudaSetDevice(int index) {
  return driver_call([=] {
    if (device_count() == 0) return cudaErrorNoDevice;
    if (index < 0 || index >= device_count()) return cudaErrorInvalidDevice;
    current = index;
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int index) {
  return driver_call([=] {
    if (device_count() == 0) return cudaErrorNoDevice;
    if (index < 0 || index >= device_count()) return cudaErrorInvalidDevice;
    cudaDeviceProp &p = *properties;
    memset(static_cast<void *>(&p), 0, sizeof p);
    snprintf(p.name, sizeof p.name, "CUDA emulator");
    p.major = settings.compute_capability / 10;
    p.minor = settings.compute_capability % 10;
    p.totalGlobalMem = settings.vram_bytes;
    p.totalConstMem = 64 << 10;
    p.sharedMemPerBlock = 48 << 10;
    p.sharedMemPerBlockOptin = settings.shared_optin_bytes();
    p.sharedMemPerMultiprocessor = settings.shared_multiprocessor_bytes();
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.warpSize = 32;
    p.maxThreadsPerBlock = 1024;
    p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
    p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 0x7fffffff;
    p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    p.maxThreadsPerMultiProcessor = settings.compute_capability == 75 ? 1024 : 1536;
    p.maxBlocksPerMultiProcessor = 16;
    p.multiProcessorCount = 4;
    p.l2CacheSize = 4 << 20;
    p.memoryBusWidth = 128;
    p.pciBusID = index + 1;
    p.asyncEngineCount = 2;
    p.canMapHostMemory = p.concurrentKernels = p.unifiedAddressing = p.streamPrioritiesSupported = p.hostRegisterSupported = 1;
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int index) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, index)) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(p.sharedMemPerBlock); break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrIntegrated: *value = p.integrated; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrAsyncEngineCount: *value = p.asyncEngineCount; break;
    case cudaDevAttrUnifiedAddressing: *value = p.unifiedAddressing; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = static_cast<int>(p.sharedMemPerMultiprocessor); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(p.sharedMemPerBlockOptin); break;
    default: report("cudaDeviceGetAttribute: the emulator does not know attribute %d", static_cast<int>(attribute)); return remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

EMU_EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  return device_call([=] {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
  });
}

EMU_EXPORT cudaError_t cudaPeekAtLastError() {
  std::lock_guard<std::recursive_mutex> lock(api_mutex());
  const cudaError_t sticky = device(current).sticky;
  return sticky ? sticky : last_error;
}
EMU_EXPORT cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

#define EMU_ERRORS(X)                                                                                                      \
  X(cudaSuccess, "no error")                                                                                               \
  X(cudaErrorInvalidValue, "invalid argument")                                                                             \
  X(cudaErrorMemoryAllocation, "out of memory")                                                                            \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                       \
  X(cudaErrorInvalidDevicePointer, "invalid device pointer")                                                               \
  X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                                                  \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")                           \
  X(cudaErrorInvalidDeviceFunction, "invalid device function")                                                             \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                                               \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                                                      \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                             \
  X(cudaErrorNotReady, "device not ready")                                                                                 \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                                   \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                                              \
  X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                                                     \
  X(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped")                   \
  X(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region")                         \
  X(cudaErrorMisalignedAddress, "misaligned address")                                                                      \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                                                  \
  X(cudaErrorNotPermitted, "operation not permitted")                                                                      \
  X(cudaErrorUnknown, "unknown error")

EMU_EXPORT const char *cudaGetErrorName(cudaError_t error) {
  switch (static_cast<int>(error)) {
#define EMU_NAME(name, text)                                                                                               \
  case name: return #name;
    EMU_ERRORS(EMU_NAME)
  }
  return "unrecognized error code";
}
EMU_EXPORT const char *cudaGetErrorString(cudaError_t error) {
  switch (static_cast<int>(error)) {
#define EMU_TEXT(name, text)                                                                                               \
  case name: return text;
    EMU_ERRORS(EMU_TEXT)
  }
  return "unrecognized error code";
}

}  // extern "C"
