#include <algorithm>
#include <cmath>

#include "arguments.h"
#include "recurrent_sequences.h"
#include "row_kernels.h"

using airk::at;

namespace {

struct DeltaCall {
  float *y;
  const float *q, *k, *v, *log_decay, *beta;
  float *state;
  uint64_t q_stride, k_stride, v_stride, key_heads, value_heads, key_dim, value_dim;
  float scale;
  const float *skip;  // nullptr for none
  bool corrects;
  bool key_heads_take_turns;
};

// Columns [begin, end) of one head's state, over all tokens of one sequence.
void advance(const DeltaCall &call, const airk::RecurrentSequence &each, uint64_t head, uint64_t begin, uint64_t end,
             const airk::RowKernels &kernels) {
  const auto state_of = [&](uint64_t slot) { return call.state + (slot * call.value_heads + head) * call.key_dim * call.value_dim + begin; };
  float *state = state_of(each.to);
  const float *before = state_of(each.from);
  for (uint64_t i = 0; i < call.key_dim; i++) {
    float *row = state + i * call.value_dim;
    if (each.sequence.cached == 0) std::fill(row, row + (end - begin), 0.0f);
    else if (before != state) std::copy(before + i * call.value_dim, before + i * call.value_dim + (end - begin), row);
  }
  const uint64_t key_head = call.key_heads_take_turns ? head % call.key_heads : head / (call.value_heads / call.key_heads);
  for (uint64_t t = each.sequence.first_token; t < each.sequence.first_token + each.sequence.tokens; t++) {
    const uint64_t gate = t * call.value_heads + head;
    kernels.delta_step(state, static_cast<int64_t>(call.value_dim), call.q + t * call.q_stride + key_head * call.key_dim,
                       call.k + t * call.k_stride + key_head * call.key_dim, call.v + t * call.v_stride + head * call.value_dim + begin,
                       call.y + gate * call.value_dim + begin, static_cast<int64_t>(call.key_dim), static_cast<int64_t>(end - begin),
                       std::exp(call.log_decay[gate]), call.beta[gate], call.scale, call.skip ? call.skip + head : nullptr, call.corrects);
  }
}

}  // namespace

extern "C" airk_status airk_gated_delta_rule(airk_stream *stream, airk_ptr y, airk_ptr q, uint64_t q_stride, airk_ptr k, uint64_t k_stride,
                                             airk_ptr v, uint64_t v_stride, airk_ptr log_decay, airk_ptr beta, airk_ptr state,
                                             airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count,
                                             uint64_t tokens, uint64_t key_heads, uint64_t value_heads, uint64_t key_dim,
                                             uint64_t value_dim, float scale, airk_ptr skip, int32_t corrects,
                                             int32_t key_heads_take_turns) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  const airk_status invalid =
      airk::check_gated_delta_rule(stream, y, q, q_stride, k, k_stride, v, v_stride, log_decay, beta, state, state_slots, slots, sequences,
                                   sequence_count, tokens, key_heads, value_heads, key_dim, value_dim, scale, skip, corrects);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  DeltaCall call = {};
  call.y = at<float>(y);
  call.q = at<const float>(q);
  call.k = at<const float>(k);
  call.v = at<const float>(v);
  call.log_decay = at<const float>(log_decay);
  call.beta = at<const float>(beta);
  call.state = at<float>(state);
  call.q_stride = q_stride;
  call.k_stride = k_stride;
  call.v_stride = v_stride;
  call.key_heads = key_heads;
  call.value_heads = value_heads;
  call.key_dim = key_dim;
  call.value_dim = value_dim;
  call.scale = scale;
  call.skip = skip ? at<const float>(skip) : nullptr;
  call.corrects = corrects != 0;
  call.key_heads_take_turns = key_heads_take_turns != 0;
  return airk::enqueue(stream, [=]() -> airk_status {
    std::vector<airk::RecurrentSequence> read;
    const airk_status status = airk::read_recurrent_sequences(context, airk::SequenceUser::gated_delta_rule, at<const int32_t>(sequences),
                                                              sequence_count, at<const int32_t>(state_slots), slots, tokens, &read);
    if (status != AIRK_OK) return status;
    constexpr uint64_t columns = static_cast<uint64_t>(airk::kDeltaColumns);
    const airk::RowKernels &kernels = airk::row_kernels(context);
    const uint64_t parts = (value_dim + columns - 1) / columns, each = value_heads * parts;
    const int64_t grain = airk::grain_of(static_cast<int64_t>(2 * key_dim * columns * std::max<uint64_t>(1, tokens / sequence_count)));
    airk::parallel_for(context, static_cast<int64_t>(read.size() * each), grain, [&](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        const uint64_t first = i % parts * columns;
        advance(call, read[i / each], i % each / parts, first, std::min(first + columns, value_dim), kernels);
      }
    });
    return AIRK_OK;
  });
}
