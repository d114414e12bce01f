// What the handles of the ABI are made of in the CUDA library, and how an operation starts its kernels.
//
// The quantizers and the views of weights are the CPU twin's own object files: this library gives them the functions of
// cpu/runtime.h that they need. cpu/runtime.h's queue is not used; CUDA's streams take its place.
#pragma once

#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "../cpu/context_core.h"
#include "../cpu/runtime.h"
#include "../cpu/thread_pool.h"
#include "device_error.h"
#include "launch.h"

namespace airk {

// Makes the context's device current for the calling thread; each ABI call may come on another thread.
airk_status use_device(airk_context *context);

// Turns a failed CUDA call into a status and text: "Cannot <action>: <what CUDA says>". Failures of the device are sticky.
airk_status fail_cuda(airk_context *context, const char *action, cudaError_t error);

// The sticky error's status, AIRK_OK where there is none; its text becomes the latest again. Sees what kernels have reported.
airk_status sticky_status(airk_context *context);
void make_sticky(airk_context *context, airk_status status);

// Device memory of the stream, 256-aligned, for the operation that is being enqueued: its kernels are done with it before those of the
// next operation start. Its contents are lost between operations. It grows as needed, unless airk_stream_set_scratch has fixed it.
airk_status scratch_of(airk_stream *stream, const char *op, uint64_t bytes, void **memory);

// Most bytes that scratch_of can give.
uint64_t most_scratch_bytes(airk_stream *stream);

// The memory where it still holds what an operation labelled so, and nobody called scratch_of since; else nullptr.
void *kept_scratch(airk_stream *stream, const ScratchLabel &label);
void keep_scratch(airk_stream *stream, const ScratchLabel &label);

// False where the operation is to be skipped: the context has failed or is cancelled.
bool may_enqueue(airk_stream *stream);

// Enqueues an operation: body(cudaStream_t) launches kernels or copies and returns the first error.
template <class Body> airk_status enqueue_on(airk_stream *stream, const char *op, Body &&body);

void free_blocks(airk_context *context);

}  // namespace airk

struct airk_context : airk::ContextCore {
  airk_context(int device, int threads);
  ~airk_context();

  const int device;
  const int threads;  // of the quantizers
  const airk::Isa isa;
  std::string name;
  int major = 0, minor = 0, multiprocessors = 0, driver = 0;

  // Page-locked: kernels write it, the host reads it without asking the device.
  airk::DeviceError *device_error = nullptr;

  // Quantizers take turns; their threads start with the first one.
  std::mutex pool_mutex;
  std::unique_ptr<airk::ThreadPool> pool;

  std::mutex objects_mutex;
  std::set<airk_stream *> streams;
  std::set<airk_event *> events;
  // Aligned address -> address that CUDA gave.
  std::map<uint64_t, void *> device_blocks, host_blocks;
};

struct airk_stream {
  ~airk_stream();

  airk_context *context;
  cudaStream_t handle = nullptr;
  std::mutex scratch_mutex;
  void *scratch = nullptr;
  uint64_t scratch_bytes = 0;
  bool scratch_is_given = false;
  // What the latest operation left in it, where that can be used again: kept_scratch.
  bool scratch_labelled = false;
  airk::ScratchLabel scratch_label = {};
  // Whether the cancel flag made it skip work since the last record and the last synchronize.
  std::atomic<bool> skipped_since_record{false};
  std::atomic<bool> skipped_since_synchronize{false};
};

struct airk_event {
  ~airk_event();

  airk_context *context;
  cudaEvent_t handle = nullptr;
  std::atomic<bool> recorded{false};
  // AIRK_CANCELLED where work before the latest record was skipped.
  std::atomic<airk_status> status{AIRK_OK};
};

template <class Body> airk_status airk::enqueue_on(airk_stream *stream, const char *op, Body &&body) {
  if (!may_enqueue(stream)) return AIRK_OK;
  airk_context *context = stream->context;
  const airk_status status = use_device(context);
  if (status != AIRK_OK) return status;
  const cudaError_t error = body(stream->handle);
  if (error == cudaSuccess) return AIRK_OK;
  char action[64];
  std::snprintf(action, sizeof(action), "run %s", op);
  return fail_cuda(context, action, error);
}
