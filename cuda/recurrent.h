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

  // Gives a sequence and the slots of the states that it reads and writes; returns false, and reports, where an entry is not one that the caller
  // may have meant.
  __device__ bool read(uint64_t index, PassSequence *sequence, uint64_t *from, uint64_t *to) const {
    if (!accept(error, user, read_sequence(sequences, index, tokens, ~0ull, sequence))) return false;
    const int *own = state_slots + 2 * index;
    *from = static_cast<uint64_t>(own[0]);
    *to = static_cast<uint64_t>(own[1]);
    return accept(error, user, check_state_slot(index, own, slots));
  }
};

constexpr uint64_t kMostSequences = 65535;  // that a grid's y and z can count

}  // namespace airk
