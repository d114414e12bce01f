// Streams: a queue and a worker thread each.
#include <pthread.h>

#include <utility>

#include "context.h"

namespace airk {

namespace {
// Between two operations of a pass the caller needs a few microseconds; between passes the worker may sleep.
constexpr int64_t kSpinMicroseconds = 40;

int64_t spin_microseconds() { return usable_processors() > 1 ? kSpinMicroseconds : 0; }
}  // namespace

airk_context *context_of(airk_stream *stream) { return stream->context; }

void push(airk_stream *stream, Task task) {
  bool wake;
  {
    std::lock_guard<std::mutex> lock(stream->mutex);
    stream->queue.push_back(std::move(task));
    stream->pending.store(true, std::memory_order_release);
    wake = stream->sleeping;
  }
  if (wake) stream->wake.notify_one();
}

airk_status enqueue(airk_stream *stream, std::function<airk_status()> run) {
  return guarded(stream->context, [&] {
    push(stream, {Task::Kind::compute, std::move(run), nullptr});
    return AIRK_OK;
  });
}

airk_status enqueue_transfer(airk_stream *stream, std::function<airk_status()> run) {
  return guarded(stream->context, [&] {
    push(stream, {Task::Kind::transfer, std::move(run), nullptr});
    return AIRK_OK;
  });
}

}  // namespace airk

using airk::Task;

airk_stream::airk_stream(airk_context *owner) : context(owner), worker([this] { work(); }) {}

airk_stream::~airk_stream() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    stopping = true;
    pending.store(true, std::memory_order_release);
  }
  wake.notify_one();
  worker.join();
}

void airk_stream::work() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "airk-stream");
  airk::yield_to_readers();
#endif
  const int64_t spin_us = airk::spin_microseconds();
  std::vector<Task> batch;
  for (;;) {
    airk::spin_until([this] { return pending.load(std::memory_order_acquire); }, spin_us);
    {
      std::unique_lock<std::mutex> lock(mutex);
      sleeping = true;
      while (queue.empty() && !stopping) wake.wait(lock);
      sleeping = false;
      if (queue.empty()) return;
      batch.swap(queue);
      pending.store(false, std::memory_order_relaxed);
    }
    for (Task &task : batch) execute(task);
    batch.clear();
  }
}

void airk_stream::execute(Task &task) {
  switch (task.kind) {
    case Task::Kind::record:
      task.marker->reach(std::exchange(skipped_since_record, false) ? AIRK_CANCELLED : AIRK_OK);
      return;
    case Task::Kind::synchronize:
      task.marker->reach(std::exchange(skipped_since_synchronize, false) ? AIRK_CANCELLED : AIRK_OK);
      return;
    case Task::Kind::wait:
      task.marker->wait();
      return;
    case Task::Kind::compute:
    case Task::Kind::transfer:
      break;
  }
  std::unique_lock<std::mutex> turn(context->operation, std::defer_lock);
  if (task.kind == Task::Kind::compute) turn.lock();
  if (context->failed()) return;
  if (airk::cancelled(context)) {
    skipped_since_record = skipped_since_synchronize = true;
    return;
  }
  const airk_status status = airk::guarded(context, task.run);
  if (status != AIRK_OK) airk::make_sticky(context, status);
}

extern "C" airk_status airk_stream_create(airk_context *context, airk_stream **stream) {
  if (!context || !stream) return AIRK_INVALID;
  *stream = nullptr;
  return airk::guarded(context, [&] {
    auto made = std::make_unique<airk_stream>(context);
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->streams.insert(made.get());
    *stream = made.release();
    return AIRK_OK;
  });
}

extern "C" void airk_stream_destroy(airk_stream *stream) {
  if (!stream) return;
  {
    std::lock_guard<std::mutex> lock(stream->context->objects_mutex);
    stream->context->streams.erase(stream);
  }
  delete stream;
}

extern "C" airk_status airk_stream_set_scratch(airk_stream *stream, airk_ptr, uint64_t) {
  if (!stream) return AIRK_INVALID;
  return airk::fail(stream->context, AIRK_UNSUPPORTED, "Cannot give a stream scratch memory: the CPU library's operations have memory of their own");
}

extern "C" airk_status airk_stream_synchronize(airk_stream *stream) {
  if (!stream) return AIRK_INVALID;
  airk_context *context = stream->context;
  return airk::guarded(context, [&] {
    const auto marker = std::make_shared<airk::Marker>();
    airk::push(stream, {Task::Kind::synchronize, nullptr, marker});
    marker->wait();
    const airk_status sticky = airk::sticky_status(context);
    if (sticky != AIRK_OK) return sticky;
    if (marker->status() == AIRK_OK) return sticky;
    return airk::fail(context, marker->status(), "Cannot finish the stream's work: it was cancelled");
  });
}
