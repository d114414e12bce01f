// The sequences of a pass whose layers keep a state each.
#pragma once

#include <vector>

#include "pass_sequence.h"
#include "runtime.h"

namespace airk {

struct RecurrentSequence {
  PassSequence sequence;
  uint64_t from, to;  // the slots of the states that are read and written
};

// Reads all sequences that have tokens, and where their states lie; fails the context where an entry is wrong.
inline airk_status read_recurrent_sequences(airk_context *context, SequenceUser user, const int32_t *sequences, uint64_t count,
                                            const int32_t *state_slots, uint64_t slots, uint64_t tokens,
                                            std::vector<RecurrentSequence> *read) {
  for (uint64_t i = 0; i < count; i++) {
    PassSequence sequence = {};
    SequenceFinding finding = read_sequence(sequences, i, tokens, UINT64_MAX, &sequence);
    const int32_t *own = state_slots + 2 * i;
    if (finding.fault == SequenceFault::none) finding = check_state_slot(i, own, slots);
    if (finding.fault != SequenceFault::none) {
      char text[256];
      describe(user, finding, text, sizeof(text));
      return fail(context, AIRK_INVALID, "%s", text);
    }
    if (sequence.tokens > 0) read->push_back({sequence, static_cast<uint64_t>(own[0]), static_cast<uint64_t>(own[1])});
  }
  return AIRK_OK;
}

}  // namespace airk
