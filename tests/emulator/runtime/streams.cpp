#include "streams.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "api.h"
#include "grid.h"
#include "memory.h"
#include "report.h"
#include "settings.h"

#define EMU_EXPORT __attribute__((visibility("default")))

namespace emu {

namespace {

struct Stream;

// One cudaEventRecord. A wait holds on to the record that was the latest when it was enqueued, whatever happens to the event.
struct Record {
  std::weak_ptr<Stream> stream;
  bool reached = false;
  std::chrono::steady_clock::time_point time;
};

struct Event {
  std::shared_ptr<Record> latest;  // nullptr while never recorded
  bool timing = true;
  int device = 0;
};

struct Operation {
  std::function<int()> run;      // empty for a wait
  std::shared_ptr<Record> wait;  // or nullptr
  uint64_t number = 0;           // in the order of enqueuing
};

struct Stream {
  std::deque<Operation> queue;
  int device = 0;
  bool with_default = true;  // ordered with the default stream
  bool is_default = false;
};

using StreamPtr = std::shared_ptr<Stream>;

std::map<int, StreamPtr> default_streams;
std::map<cudaStream_t, StreamPtr> streams;
std::map<cudaEvent_t, std::shared_ptr<Event>> events;
uint64_t next_handle = 16, next_number = 1;  // handles are never used again: a destroyed one is known for what it is
uint64_t random_state = 0, random_seed = 0;

uint64_t random_number() {
  if (random_state == 0 || random_seed != settings.seed) random_state = mix_seed(random_seed = settings.seed);
  return next_random(random_state);
}

StreamPtr default_stream(int device) {
  StreamPtr &stream = default_streams[device];
  if (!stream) {
    stream = std::make_shared<Stream>();
    stream->device = device;
    stream->is_default = true;
  }
  return stream;
}

StreamPtr find_stream(cudaStream_t handle) {
  if (!handle || handle == cudaStreamLegacy) return default_stream(current_device());
  const auto found = streams.find(handle);
  if (found != streams.end()) return found->second;
  report("a call names a stream that was never created or is destroyed");
  return nullptr;
}

std::shared_ptr<Event> find_event(cudaEvent_t handle) {
  const auto found = events.find(handle);
  if (found != events.end()) return found->second;
  report("a call names an event that was never created or is destroyed");
  return nullptr;
}

std::vector<StreamPtr> all_streams() {
  std::vector<StreamPtr> all;
  for (auto &entry : default_streams) all.push_back(entry.second);
  for (auto &entry : streams) all.push_back(entry.second);
  return all;
}

// The streams whose earlier operations this one must wait for, beyond its own: the default stream and those ordered with it.
StreamPtr earlier_by_default_order(const Stream &stream) {
  const uint64_t number = stream.queue.front().number;
  for (const StreamPtr &other : all_streams()) {
    if (other.get() == &stream || other->device != stream.device || other->queue.empty()) continue;
    const bool ordered = stream.is_default ? other->with_default : stream.with_default && other->is_default;
    if (ordered && other->queue.front().number < number) return other;
  }
  return nullptr;
}

bool is_runnable(const Stream &stream) {
  if (stream.queue.empty()) return false;
  const Operation &head = stream.queue.front();
  return !(head.wait && !head.wait->reached) && !earlier_by_default_order(stream);
}

void run_head(Stream &stream) {
  Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (!operation.run) return;
  Device &owner = device(stream.device);
  const int error = operation.run();
  if (error && !owner.sticky) owner.sticky = static_cast<cudaError_t>(error);
}

bool run_any() {
  std::vector<StreamPtr> runnable;
  for (const StreamPtr &stream : all_streams())
    if (is_runnable(*stream)) runnable.push_back(stream);
  if (runnable.empty()) return false;
  run_head(*runnable[settings.streams == Streams::random ? random_number() % runnable.size() : 0]);
  return true;
}

// Runs the stream's operations up to that number, and what they wait for, and nothing else.
void run_needed(const StreamPtr &stream, uint64_t number) {
  while (!stream->queue.empty() && stream->queue.front().number <= number) {
    const Operation &head = stream->queue.front();
    if (head.wait && !head.wait->reached) {
      const StreamPtr recording = head.wait->stream.lock();
      if (recording && !recording->queue.empty()) run_needed(recording, recording->queue.front().number);
      else head.wait->reached = true;  // its stream was released with everything else
    } else if (const StreamPtr earlier = earlier_by_default_order(*stream)) {
      run_needed(earlier, earlier->queue.front().number);
    } else {
      run_head(*stream);
    }
  }
}

void run_until(const StreamPtr &stream, uint64_t number) {
  if (settings.streams == Streams::random)
    while (!stream->queue.empty() && stream->queue.front().number <= number && run_any()) {
    }
  run_needed(stream, number);
}

// What runs at once when something was enqueued.
void run_some() {
  if (settings.streams == Streams::eager)
    while (run_any()) {
    }
  if (settings.streams == Streams::random && random_number() % 4 == 0)
    for (uint64_t steps = 1 + random_number() % 4; steps > 0 && run_any(); steps--) {
    }
}

cudaError_t append(const StreamPtr &stream, Operation operation) {
  operation.number = next_number++;
  stream->queue.push_back(std::move(operation));
  run_some();
  return cudaSuccess;
}

cudaError_t create_stream(cudaStream_t *handle, unsigned flags) {
  if (flags & ~cudaStreamNonBlocking) return cudaErrorInvalidValue;
  auto stream = std::make_shared<Stream>();
  stream->device = current_device();
  stream->with_default = !(flags & cudaStreamNonBlocking);
  *handle = reinterpret_cast<cudaStream_t>(next_handle += 16);
  streams[*handle] = stream;
  return cudaSuccess;
}

}  // namespace

cudaError_t enqueue(cudaStream_t handle, std::function<int()> run) {
  const StreamPtr stream = find_stream(handle);
  if (!stream || stream->device != current_device()) return cudaErrorInvalidResourceHandle;
  Operation operation;
  // After a failure nothing more runs on the device.
  operation.run = [run = std::move(run), index = stream->device] { return device(index).sticky ? 0 : run(); };
  return append(stream, std::move(operation));
}

cudaError_t after_synchronizing() {
  check_margins();
  Device &own = device(current_device());
  if (settings.fail_sync && ++counters.syncs == settings.fail_sync && !own.sticky) own.sticky = static_cast<cudaError_t>(settings.fail_error);
  return own.sticky;
}

cudaError_t synchronize(cudaStream_t handle) {
  const StreamPtr stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  run_until(stream, next_number);
  return cudaSuccess;
}

void synchronize_all() {
  while (run_any()) {
  }
}

StreamCounts count_streams() {
  StreamCounts counts = {streams.size(), events.size(), 0};
  for (const StreamPtr &stream : all_streams()) counts.pending_operations += stream->queue.size();
  return counts;
}

void release_streams() {
  streams.clear();
  default_streams.clear();
  events.clear();
}

}  // namespace emu

using namespace emu;

extern "C" {

EMU_EXPORT cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return device_call([=] { return create_stream(stream, cudaStreamDefault); });
}
EMU_EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return device_call([=] { return create_stream(stream, flags); });
}
// A priority is a hint; any order of ready streams that the emulator may choose is one that a GPU may choose.
EMU_EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
  return device_call([=] { return create_stream(stream, flags); });
}
EMU_EXPORT cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return release_call([=] {
    if (streams.find(handle) == streams.end()) {
      report("cudaStreamDestroy of a stream that was never created or is destroyed");
      return cudaErrorInvalidResourceHandle;
    }
    synchronize(handle);  // a GPU returns at once and finishes the stream's work later
    streams.erase(handle);
    return cudaSuccess;
  });
}
EMU_EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return device_call([=] {
    const cudaError_t error = synchronize(handle);
    return error ? error : after_synchronizing();
  });
}
EMU_EXPORT cudaError_t cudaDeviceSynchronize() {
  return device_call([] {
    synchronize_all();
    return after_synchronizing();
  });
}
// Asking does one step of the work asked for, so that a polling loop ends.
EMU_EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return device_call([=] {
    const StreamPtr stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->queue.empty()) return device(current_device()).sticky;
    run_needed(stream, stream->queue.front().number);
    return device(current_device()).sticky ? device(current_device()).sticky : cudaErrorNotReady;
  });
}
EMU_EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  return device_call([=] {
    if (flags != 0) return cudaErrorInvalidValue;
    const StreamPtr stream = find_stream(handle);
    const auto event = find_event(event_handle);
    if (!stream || !event) return cudaErrorInvalidResourceHandle;
    Operation operation;
    operation.wait = event->latest;
    return append(stream, std::move(operation));
  });
}
EMU_EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  return device_call([=] {
    return enqueue(stream, [=] {
      in_host_function = true;
      function(data);
      in_host_function = false;
      return 0;
    });
  });
}

EMU_EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags) {
  return device_call([=] {
    if (flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) return cudaErrorInvalidValue;
    auto event = std::make_shared<Event>();
    event->timing = !(flags & cudaEventDisableTiming);
    event->device = current_device();
    *handle = reinterpret_cast<cudaEvent_t>(next_handle += 16);
    events[*handle] = event;
    return cudaSuccess;
  });
}
EMU_EXPORT cudaError_t cudaEventCreate(cudaEvent_t *handle) { return cudaEventCreateWithFlags(handle, cudaEventDefault); }
EMU_EXPORT cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return release_call([=] {
    if (events.erase(handle)) return cudaSuccess;
    report("cudaEventDestroy of an event that was never created or is destroyed");
    return cudaErrorInvalidResourceHandle;
  });
}
EMU_EXPORT cudaError_t cudaEventRecord(cudaEvent_t event_handle, cudaStream_t stream_handle) {
  return device_call([=] {
    const auto event = find_event(event_handle);
    const StreamPtr stream = find_stream(stream_handle);
    if (!event || !stream || event->device != stream->device) return cudaErrorInvalidResourceHandle;
    const auto record = std::make_shared<Record>();
    record->stream = stream;
    event->latest = record;
    Operation operation;
    operation.run = [record] {
      record->reached = true;
      record->time = std::chrono::steady_clock::now();
      return 0;
    };
    return append(stream, std::move(operation));
  });
}
EMU_EXPORT cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return device_call([=] {
    const auto event = find_event(handle);
    if (!event) return cudaErrorInvalidResourceHandle;
    if (!event->latest || event->latest->reached) return cudaSuccess;
    const StreamPtr stream = event->latest->stream.lock();
    if (stream && !stream->queue.empty()) run_needed(stream, stream->queue.front().number);
    return device(current_device()).sticky ? device(current_device()).sticky : cudaErrorNotReady;
  });
}
EMU_EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return device_call([=] {
    const auto event = find_event(handle);
    if (!event) return cudaErrorInvalidResourceHandle;
    const auto record = event->latest;
    const StreamPtr stream = record ? record->stream.lock() : nullptr;
    while (record && !record->reached && stream && !stream->queue.empty()) run_until(stream, stream->queue.front().number);
    return after_synchronizing();
  });
}
EMU_EXPORT cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start_handle, cudaEvent_t stop_handle) {
  return device_call([=] {
    const auto start = find_event(start_handle), stop = find_event(stop_handle);
    if (!start || !stop || !start->timing || !stop->timing || !start->latest || !stop->latest) return cudaErrorInvalidResourceHandle;
    if (!start->latest->reached || !stop->latest->reached) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(stop->latest->time - start->latest->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
