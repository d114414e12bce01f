// Events: the latest marker that was recorded.
#include "context.h"

namespace airk {

namespace {

// A stream that waits for another stream's copy usually waits shortly.
constexpr int64_t kSpinMicroseconds = 10;

std::shared_ptr<Marker> latest_of(airk_event *event) {
  std::lock_guard<std::mutex> lock(event->mutex);
  return event->latest;
}

airk_status status_of(airk_event *event, const Marker *marker) {
  const airk_status sticky = sticky_status(event->context);
  if (sticky != AIRK_OK) return sticky;
  if (!marker || marker->status() == AIRK_OK) return AIRK_OK;
  return fail(event->context, marker->status(), "Cannot reach the event: work before it was cancelled");
}

}  // namespace

void Marker::reach(airk_status status) {
  status_ = status;
  time_ns_ = monotonic_ns();
  // Notified under the lock: the waiter may drop the last reference as soon as it sees the flag.
  std::lock_guard<std::mutex> lock(mutex_);
  reached_.store(true, std::memory_order_release);
  changed_.notify_all();
}

void Marker::wait() {
  if (spin_until([this] { return reached(); }, usable_processors() > 1 ? kSpinMicroseconds : 0)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!reached()) changed_.wait(lock);
}

}  // namespace airk

using airk::guarded;
using airk::Marker;
using airk::Task;

extern "C" airk_status airk_event_create(airk_context *context, airk_event **event) {
  if (!context || !event) return AIRK_INVALID;
  *event = nullptr;
  return guarded(context, [&] {
    auto made = std::make_unique<airk_event>();
    made->context = context;
    std::lock_guard<std::mutex> lock(context->objects_mutex);
    context->events.insert(made.get());
    *event = made.release();
    return AIRK_OK;
  });
}

extern "C" void airk_event_destroy(airk_event *event) {
  if (!event) return;
  {
    std::lock_guard<std::mutex> lock(event->context->objects_mutex);
    event->context->events.erase(event);
  }
  delete event;
}

extern "C" airk_status airk_event_record(airk_event *event, airk_stream *stream) {
  if (!event || !stream) return AIRK_INVALID;
  if (event->context != stream->context) {
    return airk::fail(event->context, AIRK_INVALID, "Cannot record an event: its stream belongs to another context");
  }
  return guarded(event->context, [&] {
    auto marker = std::make_shared<Marker>();
    // Both under the event's lock, so that `latest` is the one recorded last where two threads record.
    std::lock_guard<std::mutex> lock(event->mutex);
    airk::push(stream, {Task::Kind::record, nullptr, marker});
    event->latest = std::move(marker);
    return AIRK_OK;
  });
}

extern "C" airk_status airk_stream_wait_event(airk_stream *stream, airk_event *event) {
  if (!stream || !event) return AIRK_INVALID;
  if (event->context != stream->context) {
    return airk::fail(stream->context, AIRK_INVALID, "Cannot wait for an event: it belongs to another context");
  }
  return guarded(stream->context, [&] {
    auto marker = airk::latest_of(event);
    if (marker && !marker->reached()) airk::push(stream, {Task::Kind::wait, nullptr, std::move(marker)});
    return AIRK_OK;
  });
}

extern "C" airk_status airk_event_query(airk_event *event) {
  if (!event) return AIRK_INVALID;
  return guarded(event->context, [&] {
    const auto marker = airk::latest_of(event);
    if (!marker || marker->reached()) return airk::status_of(event, marker.get());
    const airk_status sticky = airk::sticky_status(event->context);
    return sticky != AIRK_OK ? sticky : static_cast<airk_status>(AIRK_NOT_READY);
  });
}

extern "C" airk_status airk_event_synchronize(airk_event *event) {
  if (!event) return AIRK_INVALID;
  return guarded(event->context, [&] {
    const auto marker = airk::latest_of(event);
    if (marker) marker->wait();
    return airk::status_of(event, marker.get());
  });
}

extern "C" airk_status airk_event_elapsed(airk_event *start, airk_event *stop, float *ms) {
  if (!start || !stop || !ms) return AIRK_INVALID;
  return guarded(start->context, [&] {
    const auto from = airk::latest_of(start), to = airk::latest_of(stop);
    if (!from || !to || !from->reached() || !to->reached()) {
      return airk::fail(start->context, AIRK_INVALID, "Cannot time events: the %s one is not reached, both must be",
                        from && from->reached() ? "second" : "first");
    }
    *ms = static_cast<float>(static_cast<double>(to->time_ns() - from->time_ns()) / 1e6);
    return static_cast<airk_status>(AIRK_OK);
  });
}
