// What the handles of the ABI are made of. For library.cpp, stream.cpp, event.cpp and memory.cpp; operations use runtime.h.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "context_core.h"
#include "runtime.h"
#include "thread_pool.h"

namespace airk {

// A point in one stream, made for each record of an event and each synchronize. Shared, so that an event may be destroyed or
// recorded anew while a stream still has to pass its earlier point.
class Marker {
 public:
  // Called once, by the stream's worker. status: AIRK_OK, or AIRK_CANCELLED where work before it was skipped.
  void reach(airk_status status);
  void wait();
  bool reached() const { return reached_.load(std::memory_order_acquire); }
  // Valid once reached.
  airk_status status() const { return status_; }
  int64_t time_ns() const { return time_ns_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> reached_{false};
  airk_status status_ = AIRK_OK;
  int64_t time_ns_ = 0;
};

struct Task {
  enum class Kind {
    compute,      // one at a time in the context
    transfer,     // beside the computing of other streams
    record,       // an event's marker
    synchronize,  // a waiting caller's marker
    wait,         // another stream's marker
  };
  Kind kind;
  std::function<airk_status()> run;
  std::shared_ptr<Marker> marker;
};

// Appends to the stream's queue. Throws std::bad_alloc.
void push(airk_stream *stream, Task task);

// Appends a copy: it runs beside the operations of other streams.
airk_status enqueue_transfer(airk_stream *stream, std::function<airk_status()> run);

// The sticky error's status, AIRK_OK where there is none; its text becomes the latest again.
airk_status sticky_status(airk_context *context);

// Makes the latest error final.
void make_sticky(airk_context *context, airk_status status);

// Memory mapped for the caller: rounded up to whole pages.
struct Block {
  uint64_t bytes;
};
void release_blocks(airk_context *context);

}  // namespace airk

struct airk_context : airk::ContextCore {
  airk_context(int threads, airk::Isa isa);
  ~airk_context();

  const airk::Isa isa;
  airk::ThreadPool pool;

  // One operation at a time: they share the pool and the scratch memory.
  std::mutex operation;
  void *scratch = nullptr;
  std::size_t scratch_bytes = 0;
  bool scratch_labelled = false;
  airk::ScratchLabel scratch_label = {};

  std::mutex objects_mutex;
  std::set<airk_stream *> streams;
  std::set<airk_event *> events;
  std::map<uintptr_t, airk::Block> blocks;
};

struct airk_stream {
  explicit airk_stream(airk_context *context);
  // Runs what is queued to its end.
  ~airk_stream();

  void work();
  void execute(airk::Task &task);

  airk_context *const context;
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<airk::Task> queue;
  std::atomic<bool> pending{false};
  bool sleeping = false;
  bool stopping = false;

  // The worker's own: whether the cancel flag made it skip work since the last marker of each kind.
  bool skipped_since_record = false;
  bool skipped_since_synchronize = false;

  std::thread worker;
};

struct airk_event {
  airk_context *context;
  std::mutex mutex;
  std::shared_ptr<airk::Marker> latest;
};
