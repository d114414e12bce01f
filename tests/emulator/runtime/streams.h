// Streams and events. Operations wait in their stream's queue; when they run is the setting `streams`:
//   eager    at once, where nothing before them waits;
//   lazy     not before somebody waits for them, and then only what that wait needs: a missing wait reads old data;
//   random   at seeded random moments and in a random order among the streams.
#pragma once

#include <functional>

#include "emu/runtime_api.h"

namespace emu {

// Appends an operation to the stream, nullptr being the current device's default stream. `run` returns a cudaError_t, which
// is sticky. Fails where the stream does not exist or belongs to another device.
cudaError_t enqueue(cudaStream_t stream, std::function<int()> run);
// Runs everything before now on that stream.
cudaError_t synchronize(cudaStream_t stream);
// Runs everything everywhere, as cudaFree and its like do.
void synchronize_all();
// To be returned by a synchronizing call: the current device's sticky error, or an injected one.
cudaError_t after_synchronizing();

struct StreamCounts {
  uint64_t streams, events, pending_operations;
};
StreamCounts count_streams();
// Drops all streams, events and pending operations.
void release_streams();

}  // namespace emu
