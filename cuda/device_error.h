// What a running kernel reports: numbers and offsets from files are checked where they are used. The first report stays, and
// fails the context for good.
#pragma once

#include <string>

#include "../cpu/pass_sequence.h"
#include "launch.h"

namespace airk {

enum class Complaint : int {
  none,
  embedding_id,         // index: token, value: id, limit: rows
  gather_id,            // index, value: id, limit: rows
  scatter_id,           // index, value: id, limit: rows
  slot,                 // index, value
  outliers,             // of the operation `value`, an OutlierUser
  sequence,             // and those after it: every SequenceFault of each SequenceUser
};

AIRK_BOTH_INLINE Complaint complaint_of(SequenceUser user, SequenceFault fault) {
  return static_cast<Complaint>(static_cast<int>(Complaint::sequence) + static_cast<int>(user) * static_cast<int>(SequenceFault::count) +
                                static_cast<int>(fault));
}

enum OutlierUser : int { kMatmul, kDequantize, kEmbedding };

struct DeviceError {
  unsigned claimed;
  unsigned written;
  Complaint complaint;
  long long index, value, limit;
};

#if defined(__CUDACC__) || defined(AIRK_EMULATED)
__device__ inline void report(DeviceError *error, Complaint complaint, long long index, long long value, long long limit) {
  if (atomicCAS(&error->claimed, 0u, 1u) != 0u) return;
  error->complaint = complaint;
  error->index = index;
  error->value = value;
  error->limit = limit;
  // The host must not see the flag before the rest.
  __threadfence_system();
  atomicExch(&error->written, 1u);
}
#endif

#if defined(__CUDACC__) || defined(AIRK_EMULATED)
// Returns whether nothing was found; reports what was.
__device__ inline bool accept(DeviceError *error, SequenceUser user, const SequenceFinding &finding) {
  if (finding.fault == SequenceFault::none) return true;
  report(error, complaint_of(user, finding.fault), finding.index, finding.value, finding.limit);
  return false;
}
#endif

// One line for people.
std::string text_of(const DeviceError &error);

}  // namespace airk
