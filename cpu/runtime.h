// The inside of the CPU twin: one worker thread a stream, which takes operations from a queue in order and runs each
// over one thread pool of the context. Operations are written against this file alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <utility>

#include "../cuda/airkern.h"

namespace airk {

// Instruction sets, each including those before it. amx: AVX-512 with BF16 and VNNI, and AMX tiles.
enum class Isa { portable, avx2, avx512, amx };

// Best set of the processor (and of the kernel's permission, for AMX), capped by the context's isa option.
Isa isa_of(const airk_context *context);

// Runs body(begin, end, thread) over [0, items) in runs of `grain`, on all threads of the context's pool; returns when all are done.
// Runs are handed out dynamically, so uneven work balances. thread < thread_count(context). Never throws; where the body does, the
// context fails for good. Not to be called from within a body. items <= grain runs on the caller alone and costs nothing, so give
// small work a large grain; else waking the pool costs about a microsecond while its threads are hot.
using RangeBody = std::function<void(int64_t begin, int64_t end, int thread)>;
void parallel_for(airk_context *context, int64_t items, int64_t grain, const RangeBody &body);
int thread_count(const airk_context *context);

// Scratch memory of the context that only grows, 64-aligned, for the operation that runs now (one operation runs at a time in a
// context; quantizers have their own memory). Its contents are lost between calls. nullptr where it cannot be had.
void *scratch(airk_context *context, std::size_t bytes);

// Says what the scratch memory holds now, so that the next operation may go on with it. kept_scratch returns the memory where it
// has at least `bytes`, was labelled so, and nobody called scratch since; else nullptr.
using ScratchLabel = std::array<uint64_t, 8>;
void keep_scratch(airk_context *context, const ScratchLabel &label);
void *kept_scratch(airk_context *context, const ScratchLabel &label, std::size_t bytes);

airk_context *context_of(airk_stream *stream);

// Records the error's text in the context and returns the status.
airk_status fail(airk_context *context, airk_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

// True once airk_context_cancel(context, 1) was called.
bool cancelled(const airk_context *context);

// Appends an operation. `run` returns a status; one other than AIRK_OK is sticky. Arguments are validated before this call,
// so that a caller's mistake is answered at once and nothing is enqueued.
// Never throws.
airk_status enqueue(airk_stream *stream, std::function<airk_status()> run);

// The same for any callable; building the std::function may need memory, so that happens here where the failure is caught.
template <class Run>
airk_status enqueue(airk_stream *stream, Run &&run) {
  try {
    return enqueue(stream, std::function<airk_status()>(std::forward<Run>(run)));
  } catch (const std::bad_alloc &) {
    return fail(context_of(stream), AIRK_OUT_OF_MEMORY, "Cannot enqueue an operation: no memory for its arguments");
  }
}

// Runs the body of an ABI function: an exception must not cross into the caller.
template <class Body>
airk_status guarded(airk_context *context, Body &&body) {
  try {
    return body();
  } catch (const std::bad_alloc &) {
    return fail(context, AIRK_OUT_OF_MEMORY, "Cannot serve the call: no memory for its bookkeeping");
  } catch (...) {
    return fail(context, AIRK_DEVICE_ERROR, "Cannot serve the call: the system refused a thread or a lock");
  }
}

// Checks for arguments.
inline bool multiply_overflows(uint64_t a, uint64_t b, uint64_t *product) { return __builtin_mul_overflow(a, b, product); }
template <class T> T *at(airk_ptr address) { return reinterpret_cast<T *>(static_cast<uintptr_t>(address)); }

}  // namespace airk
