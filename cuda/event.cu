// Events.
#include "context.h"

namespace airk {

namespace {

airk_status status_of(airk_event *event) {
  const airk_status sticky = sticky_status(event->context);
  if (sticky != AIRK_OK) return sticky;
  const airk_status status = event->status.load();
  return status == AIRK_OK ? status : fail(event->context, status, "Cannot reach the event: work before it was cancelled");
}

}  // namespace
}  // namespace airk

airk_event::~airk_event() { static_cast<void>(cudaEventDestroy(handle)); }

extern "C" airk_status airk_event_create(airk_context *context, airk_event **event) {
  if (!context || !event) return AIRK_INVALID;
  *event = nullptr;
  return airk::guarded(context, [&] {
    const airk_status status = airk::use_device(context);
    if (status != AIRK_OK) return status;
    cudaEvent_t handle = nullptr;
    const cudaError_t error = cudaEventCreateWithFlags(&handle, cudaEventDefault);
    if (error != cudaSuccess) return airk::fail_cuda(context, "create an event", error);
    auto made = std::make_unique<airk_event>();
    made->context = context;
    made->handle = handle;
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->events.insert(made.get());
    *event = made.release();
    return static_cast<airk_status>(AIRK_OK);
  });
}

extern "C" void airk_event_destroy(airk_event *event) {
  if (!event) return;
  airk_context *context = event->context;
  {
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->events.erase(event);
  }
  static_cast<void>(cudaSetDevice(context->device));
  delete event;
}

extern "C" airk_status airk_event_record(airk_event *event, airk_stream *stream) {
  if (!event || !stream) return AIRK_INVALID;
  airk_context *context = event->context;
  if (context != stream->context) {
    return airk::fail(context, AIRK_INVALID, "Cannot record an event: its stream belongs to another context");
  }
  const airk_status status = airk::use_device(context);
  if (status != AIRK_OK) return status;
  const cudaError_t error = cudaEventRecord(event->handle, stream->handle);
  if (error != cudaSuccess) return airk::fail_cuda(context, "record an event", error);
  event->status = stream->skipped_since_record.exchange(false) ? AIRK_CANCELLED : AIRK_OK;
  event->recorded = true;
  return AIRK_OK;
}

extern "C" airk_status airk_stream_wait_event(airk_stream *stream, airk_event *event) {
  if (!stream || !event) return AIRK_INVALID;
  airk_context *context = stream->context;
  if (event->context != context) {
    return airk::fail(context, AIRK_INVALID, "Cannot wait for an event: it belongs to another context");
  }
  if (!event->recorded) return AIRK_OK;
  const airk_status status = airk::use_device(context);
  if (status != AIRK_OK) return status;
  const cudaError_t error = cudaStreamWaitEvent(stream->handle, event->handle, 0);
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : airk::fail_cuda(context, "wait for an event", error);
}

extern "C" airk_status airk_event_query(airk_event *event) {
  if (!event) return AIRK_INVALID;
  airk_context *context = event->context;
  airk_status status = airk::use_device(context);
  if (status != AIRK_OK) return status;
  if (event->recorded) {
    const cudaError_t error = cudaEventQuery(event->handle);
    if (error == cudaErrorNotReady) {
      status = airk::sticky_status(context);
      return status != AIRK_OK ? status : static_cast<airk_status>(AIRK_NOT_READY);
    }
    if (error != cudaSuccess) airk::fail_cuda(context, "query an event", error);
  }
  return airk::status_of(event);
}

extern "C" airk_status airk_event_synchronize(airk_event *event) {
  if (!event) return AIRK_INVALID;
  airk_context *context = event->context;
  const airk_status status = airk::use_device(context);
  if (status != AIRK_OK) return status;
  if (event->recorded) {
    const cudaError_t error = cudaEventSynchronize(event->handle);
    if (error != cudaSuccess) airk::fail_cuda(context, "wait for an event", error);
  }
  return airk::status_of(event);
}

extern "C" airk_status airk_event_elapsed(airk_event *start, airk_event *stop, float *ms) {
  if (!start || !stop || !ms) return AIRK_INVALID;
  airk_context *context = start->context;
  const airk_status status = airk::use_device(context);
  if (status != AIRK_OK) return status;
  const bool started = start->recorded && cudaEventQuery(start->handle) == cudaSuccess;
  const bool stopped = stop->recorded && cudaEventQuery(stop->handle) == cudaSuccess;
  if (!started || !stopped) {
    // A query that finds work under way leaves an error behind.
    static_cast<void>(cudaGetLastError());
    return airk::fail(context, AIRK_INVALID, "Cannot time events: the %s one is not reached, both must be", started ? "second" : "first");
  }
  const cudaError_t error = cudaEventElapsedTime(ms, start->handle, stop->handle);
  return error == cudaSuccess ? static_cast<airk_status>(AIRK_OK) : airk::fail_cuda(context, "time events", error);
}
