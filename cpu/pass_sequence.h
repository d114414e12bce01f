// What operations ask of the sequences of a pass, and what belongs to each, for both libraries. They are data, so that only the running
// operation can check them: a wrong entry must not become a stray access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "both.h"

namespace airk {

// The operations that read sequences.
enum class SequenceUser : int { attention, causal_conv1d, gated_delta_rule };

// One sequence of the pass.
struct PassSequence {
  uint64_t first_token, tokens, cached, first_page_entry;
  AIRK_BOTH_INLINE uint64_t positions() const { return cached + tokens; }
};

enum class SequenceFault : int {
  none,
  entry,          // index: sequence, value, limit: field
  end,            // index: sequence, value: end, limit: tokens of the pass
  positions,      // index: sequence, value: positions, limit: context_tokens
  page,           // index: page, value, limit: sequence
  first_visible,  // index: token of the pass, value, limit: its position
  state_slot,     // index: of state_slots, value, limit: slots
  count,
};

struct SequenceFinding {
  SequenceFault fault;
  long long index, value, limit;
};

// Reads entry `index` of `sequences`.
AIRK_BOTH static inline SequenceFinding read_sequence(const int32_t *sequences, uint64_t index, uint64_t pass_tokens,
                                                      uint64_t context_tokens, PassSequence *sequence) {
  const long long number = static_cast<long long>(index);
  uint64_t fields[4];
  for (int i = 0; i < 4; i++) {
    const int32_t field = sequences[4 * index + i];
    if (field < 0) return {SequenceFault::entry, number, field, i};
    fields[i] = static_cast<uint64_t>(field);
  }
  *sequence = {fields[0], fields[1], fields[2], fields[3]};
  const uint64_t end = sequence->first_token + sequence->tokens;
  if (end > pass_tokens) return {SequenceFault::end, number, static_cast<long long>(end), static_cast<long long>(pass_tokens)};
  if (sequence->positions() > context_tokens) {
    return {SequenceFault::positions, number, static_cast<long long>(sequence->positions()), static_cast<long long>(context_tokens)};
  }
  return {SequenceFault::none, 0, 0, 0};
}

AIRK_BOTH static inline SequenceFinding check_page(uint64_t sequence, uint64_t page, int32_t number) {
  return {number < 0 ? SequenceFault::page : SequenceFault::none, static_cast<long long>(page), number, static_cast<long long>(sequence)};
}

// own: the sequence's two entries of state_slots.
AIRK_BOTH static inline SequenceFinding check_state_slot(uint64_t sequence, const int32_t *own, uint64_t slots) {
  for (int i = 0; i < 2; i++) {
    if (own[i] >= 0 && static_cast<uint64_t>(own[i]) < slots) continue;
    return {SequenceFault::state_slot, static_cast<long long>(2 * sequence) + i, own[i], static_cast<long long>(slots)};
  }
  return {SequenceFault::none, 0, 0, 0};
}

// token: of the sequence.
AIRK_BOTH static inline SequenceFinding check_first_visible(const PassSequence &sequence, uint64_t token, int32_t first) {
  const long long position = static_cast<long long>(sequence.cached + token);
  return {first < 0 || first > position ? SequenceFault::first_visible : SequenceFault::none,
          static_cast<long long>(sequence.first_token + token), first, position};
}

// Writes one line for people.
inline void describe(SequenceUser user, const SequenceFinding &finding, char *text, std::size_t capacity) {
  static const char *const names[] = {"attention", "causal_conv1d", "gated_delta_rule"};
  const char *name = names[static_cast<int>(user)];
  const auto write = [&](const char *format, auto... values) { std::snprintf(text, capacity, format, name, values...); };
  const long long index = finding.index, value = finding.value, limit = finding.limit;
  switch (finding.fault) {
    case SequenceFault::none:
    case SequenceFault::count:
      break;
    case SequenceFault::state_slot:
      return write("Cannot run %s: state_slots[%lld][%lld] is %lld, required is 0 to %lld", index / 2, index % 2, value, limit - 1);
    case SequenceFault::entry:
      return write("Cannot run %s: sequences[%lld][%lld] is %lld, required is at least 0", index, limit, value);
    case SequenceFault::end:
      return write("Cannot run %s: sequence %lld ends at token %lld, the pass has %lld", index, value, limit);
    case SequenceFault::positions:
      return write("Cannot run %s: sequence %lld has %lld positions, context_tokens is %lld", index, value, limit);
    case SequenceFault::page:
      return write("Cannot run %s: page %lld of sequence %lld is %lld, required is at least 0", index, limit, value);
    case SequenceFault::first_visible:
      return write("Cannot run %s: first_visible[%lld] is %lld, required is 0 to %lld, the token's position", index, value, limit);
  }
}

}  // namespace airk
