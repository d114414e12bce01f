// The sequences of a pass whose layers keep a state each, as kernels read them.
#pragma once

#include "../cpu/pass_sequence.h"
#include "device_error.h"

namespace airk {

struct RecurrentSequences {
  const int *sequences, *state_slots;
  uint64_t count, slots, tokens;  // tokens: of the pass
  SequenceUser user;
  DeviceError *error;

  // Returns false, and reports, where an entry is not one that the caller may have meant.
  __device__ bool read(uint64_t index, PassSequence *sequence, uint64_t *slot) const {
    if (!accept(error, user, read_sequence(sequences, index, tokens, ~0ull, sequence))) return false;
    const int number = state_slots[index];
    *slot = static_cast<uint64_t>(number);
    return accept(error, user, check_state_slot(index, number, slots));
  }
};

constexpr uint64_t kMostSequences = 65535;  // that a grid's y and z can count

}  // namespace airk
