// The library, its contexts and their errors.
#include <cstdarg>
#include <cstring>

#include "../cpu/isa.h"
#include "context.h"

namespace airk {

namespace {

// 13010 is CUDA 13.1.
std::string cuda_version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

// Counts the devices that this library's kernels run on; says why where there is none.
int count_devices(std::string *reason) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  static_cast<void>(cudaGetLastError());
  int driver = 0, runtime = 0;
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) {
    cudaRuntimeGetVersion(&runtime);
    *reason = "its driver is for CUDA " + cuda_version(driver) + ", required is " + cuda_version(runtime) + " or later";
  } else if (error == cudaErrorInsufficientDriver) {
    *reason = "this machine has no NVIDIA driver";
  } else if (error == cudaErrorNoDevice || error == cudaSuccess) {
    *reason = "this machine has no NVIDIA GPU, or none is visible to this process";
  } else {
    *reason = std::string(cudaGetErrorName(error)) + ", " + cudaGetErrorString(error);
  }
  return 0;
}

// True where the error says something about the device, not about the call.
bool is_device_failure(cudaError_t error) { return error != cudaErrorMemoryAllocation && error != cudaErrorInvalidValue; }

// Fills what is known of the device and takes what the context needs of it. Returns the complaint, empty where there is none.
std::string prepare(airk_context *context) {
  cudaError_t error = cudaSetDevice(context->device);
  cudaDeviceProp properties;
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, context->device);
  if (error == cudaSuccess) error = cudaDriverGetVersion(&context->driver);
  if (error == cudaSuccess) {
    context->name = properties.name;
    context->major = properties.major;
    context->minor = properties.minor;
    context->multiprocessors = properties.multiProcessorCount;
    if (properties.major * 10 + properties.minor < 75) {
      return context->name + " has compute capability " + std::to_string(properties.major) + "." + std::to_string(properties.minor) +
             ", required is 7.5 or more";
    }
    void *memory = nullptr;
    error = cudaHostAlloc(&memory, sizeof(DeviceError), cudaHostAllocPortable | cudaHostAllocMapped);
    if (error == cudaSuccess) {
      std::memset(memory, 0, sizeof(DeviceError));
      context->device_error = static_cast<DeviceError *>(memory);
      return "";
    }
  }
  static_cast<void>(cudaGetLastError());
  return std::string(cudaGetErrorName(error)) + ", " + cudaGetErrorString(error);
}

}  // namespace

// ---- what the shared sources of the CPU twin ask for

Isa isa_of(const airk_context *context) { return context->isa; }

int thread_count(const airk_context *context) { return context->threads; }

bool cancelled(const airk_context *context) { return context->cancel.load(std::memory_order_relaxed); }

void parallel_for(airk_context *context, int64_t items, int64_t grain, const RangeBody &body) {
  std::lock_guard<std::mutex> lock(context->pool_mutex);
  if (!context->pool) context->pool = std::make_unique<ThreadPool>(context->threads);
  if (context->pool->run(items, grain, body)) return;
  make_sticky(context, fail(context, AIRK_OUT_OF_MEMORY, "Cannot finish an operation: no memory within a thread of the pool"));
}

airk_context *context_of(airk_stream *stream) { return stream->context; }

airk_status fail(airk_context *context, airk_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  context->fail(status, format, arguments);
  va_end(arguments);
  return status;
}

// ---- errors

void make_sticky(airk_context *context, airk_status status) { context->make_sticky(status); }

airk_status sticky_status(airk_context *context) {
  const airk_status status = context->sticky_status();
  if (status != AIRK_OK || __atomic_load_n(&context->device_error->written, __ATOMIC_ACQUIRE) == 0) return status;
  make_sticky(context, fail(context, AIRK_INVALID, "%s", text_of(*context->device_error).c_str()));
  return context->sticky_status();
}

airk_status fail_cuda(airk_context *context, const char *action, cudaError_t error) {
  // Reading it also clears an error that is not the device's.
  static_cast<void>(cudaGetLastError());
  const airk_status status = error == cudaErrorMemoryAllocation ? AIRK_OUT_OF_MEMORY : AIRK_DEVICE_ERROR;
  fail(context, status, "Cannot %s: CUDA reports %s, %s", action, cudaGetErrorName(error), cudaGetErrorString(error));
  if (is_device_failure(error)) make_sticky(context, status);
  return status;
}

airk_status use_device(airk_context *context) {
  const cudaError_t error = cudaSetDevice(context->device);
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : fail_cuda(context, "use the device", error);
}

}  // namespace airk

airk_context::airk_context(int number, int wanted) : device(number), threads(wanted), isa(airk::detect_isa()) {}

airk_context::~airk_context() {
  static_cast<void>(cudaSetDevice(device));
  // All before any memory goes: one stream may wait for another's event.
  for (airk_stream *stream : streams) static_cast<void>(cudaStreamSynchronize(stream->handle));
  for (airk_stream *stream : streams) delete stream;
  for (airk_event *event : events) delete event;
  airk::free_blocks(this);
  if (device_error) static_cast<void>(cudaFreeHost(device_error));
}

extern "C" uint32_t airk_abi_version(void) { return AIRK_ABI_VERSION; }

extern "C" airk_status airk_device_count(int32_t *count) {
  if (!count) return AIRK_INVALID;
  *count = 0;
  try {
    std::string reason;
    *count = airk::count_devices(&reason);
    return *count > 0 ? AIRK_OK : AIRK_NO_DEVICE;
  } catch (...) {
    return AIRK_OUT_OF_MEMORY;
  }
}

extern "C" airk_status airk_context_create(int32_t device, int32_t threads, const char *options, airk_context **context, char *message,
                                           uint64_t message_capacity) {
  return airk::create_context(threads, context, message, message_capacity, [&](int32_t wanted, auto refuse) -> airk_status {
    if (options && *options) return refuse(AIRK_INVALID, "Cannot use options \"" + std::string(options) + "\": the CUDA library has none");
    const std::string subject = "Cannot open device " + std::to_string(device) + ": ";
    std::string reason;
    const int count = airk::count_devices(&reason);
    if (count == 0) return refuse(AIRK_NO_DEVICE, subject + reason);
    if (device < 0 || device >= count) {
      return refuse(AIRK_NO_DEVICE, subject + "this machine has " + std::to_string(count) + ", required is 0 to " + std::to_string(count - 1));
    }
    auto made = std::make_unique<airk_context>(device, wanted);
    const std::string complaint = airk::prepare(made.get());
    if (!complaint.empty()) {
      const bool old = made->major != 0 && made->major * 10 + made->minor < 75;
      return refuse(old ? AIRK_UNSUPPORTED : AIRK_DEVICE_ERROR, subject + complaint);
    }
    *context = made.release();
    return AIRK_OK;
  });
}

extern "C" void airk_context_destroy(airk_context *context) { delete context; }

extern "C" airk_status airk_error_message(airk_context *context, char *message, uint64_t capacity) {
  if (!context || !message || capacity == 0) return AIRK_INVALID;
  context->copy_error(message, capacity);
  return AIRK_OK;
}

extern "C" airk_status airk_device_description(airk_context *context, char *json, uint64_t capacity) {
  if (!context || !json) return AIRK_INVALID;
  return airk::guarded(context, [&] {
    const std::string text = "{\"kind\":\"cuda\",\"name\":" + airk::json_string(context->name) + ",\"isa\":\"sm_" +
                             std::to_string(context->major * 10 + context->minor) +
                             "\",\"threads\":" + std::to_string(context->multiprocessors) + ",\"unifiedMemory\":false,\"driver\":\"" +
                             airk::cuda_version(context->driver) + "\"}";
    return airk::copy_description(context, text, json, capacity);
  });
}

extern "C" airk_status airk_context_cancel(airk_context *context, int32_t cancelled) {
  if (!context) return AIRK_INVALID;
  context->cancel.store(cancelled != 0, std::memory_order_relaxed);
  return AIRK_OK;
}
