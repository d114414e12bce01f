// Streams, their scratch memory, and copies.
#include "context.h"

namespace airk {

bool may_enqueue(airk_stream *stream) {
  airk_context *context = stream->context;
  if (sticky_status(context) != AIRK_OK) return false;
  if (!cancelled(context)) return true;
  stream->skipped_since_record = true;
  stream->skipped_since_synchronize = true;
  return false;
}

airk_status scratch_of(airk_stream *stream, const char *op, uint64_t bytes, void **memory) {
  airk_context *context = stream->context;
  const airk_status status = use_device(context);
  if (status != AIRK_OK) return status;
  std::lock_guard<std::mutex> lock(stream->scratch_mutex);
  stream->scratch_labelled = false;
  *memory = stream->scratch;
  if (bytes <= stream->scratch_bytes) {
    const cudaError_t error = poison(stream->scratch, bytes, stream->handle);
    return error == cudaSuccess ? AIRK_OK : fail_cuda(context, "use scratch memory", error);
  }
  if (stream->scratch_is_given) {
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot run %s: %llu bytes of device memory needed for what lies between its kernels, the stream has %llu",
                op, static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(stream->scratch_bytes));
  }
  // Work on the way may still use the old memory; cudaFree waits for it.
  cudaError_t error = stream->scratch ? cudaFree(stream->scratch) : cudaSuccess;
  stream->scratch = nullptr;
  stream->scratch_bytes = 0;
  // Some more than asked for, so that passes which grow by a token do not grow it each time.
  const uint64_t wanted = (bytes + bytes / 4 + 0xffff) & ~uint64_t{0xffff};
  if (error == cudaSuccess) error = cudaMalloc(&stream->scratch, wanted);
  if (error == cudaSuccess) {
    stream->scratch_bytes = wanted;
    *memory = stream->scratch;
    return AIRK_OK;
  }
  if (error != cudaErrorMemoryAllocation) return fail_cuda(context, "reserve scratch memory", error);
  static_cast<void>(cudaGetLastError());
  size_t free_bytes = 0, total_bytes = 0;
  static_cast<void>(cudaMemGetInfo(&free_bytes, &total_bytes));
  return fail(context, AIRK_OUT_OF_MEMORY, "Cannot run %s: %llu bytes of device memory needed for what lies between its kernels, %llu are free",
              op, static_cast<unsigned long long>(wanted), static_cast<unsigned long long>(free_bytes));
}

uint64_t most_scratch_bytes(airk_stream *stream) {
  std::lock_guard<std::mutex> lock(stream->scratch_mutex);
  return stream->scratch_is_given ? stream->scratch_bytes : UINT64_MAX;
}

void *kept_scratch(airk_stream *stream, const ScratchLabel &label) {
  std::lock_guard<std::mutex> lock(stream->scratch_mutex);
  return stream->scratch_labelled && stream->scratch_label == label ? stream->scratch : nullptr;
}

void keep_scratch(airk_stream *stream, const ScratchLabel &label) {
  std::lock_guard<std::mutex> lock(stream->scratch_mutex);
  stream->scratch_label = label;
  stream->scratch_labelled = true;
}

namespace {

airk_status enqueue_copy(airk_stream *stream, const char *what, void *to, const void *from, uint64_t bytes, cudaMemcpyKind kind) {
  if (!stream) return AIRK_INVALID;
  if (bytes == 0) return AIRK_OK;
  if (!to || !from) {
    return fail(stream->context, AIRK_INVALID, "Cannot run %s: `%s` is null, required are %llu bytes there", what, to ? "from" : "to",
                static_cast<unsigned long long>(bytes));
  }
  return enqueue_on(stream, what, [=](cudaStream_t handle) { return cudaMemcpyAsync(to, from, bytes, kind, handle); });
}

}  // namespace
}  // namespace airk

using airk::at;

airk_stream::~airk_stream() {
  static_cast<void>(cudaStreamSynchronize(handle));
  if (scratch && !scratch_is_given) static_cast<void>(cudaFree(scratch));
  static_cast<void>(cudaStreamDestroy(handle));
}

extern "C" airk_status airk_stream_create(airk_context *context, airk_stream **stream) {
  if (!context || !stream) return AIRK_INVALID;
  *stream = nullptr;
  return airk::guarded(context, [&] {
    const airk_status status = airk::use_device(context);
    if (status != AIRK_OK) return status;
    cudaStream_t handle = nullptr;
    const cudaError_t error = cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking);
    if (error != cudaSuccess) return airk::fail_cuda(context, "create a stream", error);
    auto made = std::make_unique<airk_stream>();
    made->context = context;
    made->handle = handle;
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->streams.insert(made.get());
    *stream = made.release();
    return static_cast<airk_status>(AIRK_OK);
  });
}

extern "C" void airk_stream_destroy(airk_stream *stream) {
  if (!stream) return;
  airk_context *context = stream->context;
  {
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->streams.erase(stream);
  }
  static_cast<void>(cudaSetDevice(context->device));
  delete stream;
}

extern "C" airk_status airk_stream_set_scratch(airk_stream *stream, airk_ptr memory, uint64_t bytes) {
  if (!stream) return AIRK_INVALID;
  if (memory == 0 || memory % 256 != 0 || bytes == 0) {
    return airk::fail(stream->context, AIRK_INVALID, "Cannot give a stream %llu bytes at 0x%llx: required is an address that is a multiple of 256, and 1 byte or more",
                      static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(memory));
  }
  std::lock_guard<std::mutex> lock(stream->scratch_mutex);
  if (stream->scratch && !stream->scratch_is_given) {
    return airk::fail(stream->context, AIRK_INVALID, "Cannot give a stream scratch memory: it has taken some already, required is a new stream");
  }
  stream->scratch = at<void>(memory);
  stream->scratch_bytes = bytes;
  stream->scratch_is_given = true;
  stream->scratch_labelled = false;
  return AIRK_OK;
}

extern "C" airk_status airk_stream_synchronize(airk_stream *stream) {
  if (!stream) return AIRK_INVALID;
  airk_context *context = stream->context;
  airk_status status = airk::use_device(context);
  if (status != AIRK_OK) return status;
  const bool skipped = stream->skipped_since_synchronize.exchange(false);
  const cudaError_t error = cudaStreamSynchronize(stream->handle);
  status = airk::sticky_status(context);
  if (status != AIRK_OK) return status;
  if (error != cudaSuccess) return airk::fail_cuda(context, "finish the stream's work", error);
  return skipped ? airk::fail(context, AIRK_CANCELLED, "Cannot finish the stream's work: it was cancelled")
                 : static_cast<airk_status>(AIRK_OK);
}

extern "C" airk_status airk_copy_to_device(airk_stream *stream, airk_ptr to, const void *from, uint64_t bytes) {
  return airk::enqueue_copy(stream, "copy_to_device", at<void>(to), from, bytes, cudaMemcpyHostToDevice);
}

extern "C" airk_status airk_copy_to_host(airk_stream *stream, void *to, airk_ptr from, uint64_t bytes) {
  return airk::enqueue_copy(stream, "copy_to_host", to, at<void>(from), bytes, cudaMemcpyDeviceToHost);
}

extern "C" airk_status airk_copy_on_device(airk_stream *stream, airk_ptr to, airk_ptr from, uint64_t bytes) {
  return airk::enqueue_copy(stream, "copy_on_device", at<void>(to), at<void>(from), bytes, cudaMemcpyDeviceToDevice);
}

extern "C" airk_status airk_fill(airk_stream *stream, airk_ptr to, uint8_t value, uint64_t bytes) {
  if (!stream) return AIRK_INVALID;
  if (bytes == 0) return AIRK_OK;
  if (!to) {
    return airk::fail(stream->context, AIRK_INVALID, "Cannot run fill: `to` is null, required are %llu bytes there",
                      static_cast<unsigned long long>(bytes));
  }
  return airk::enqueue_on(stream, "fill", [=](cudaStream_t handle) { return cudaMemsetAsync(at<void>(to), value, bytes, handle); });
}
