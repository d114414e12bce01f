#include <algorithm>

#include "arguments.h"
#include "recurrent_sequences.h"
#include "row_kernels.h"

using airk::at;

namespace {

struct Convolution {
  float *y;
  const float *x, *weight, *bias;
  float *state;
  uint64_t cols, kernel;
};

// Columns [begin, end) of one sequence: its outputs, then its state.
void convolve(const Convolution &call, const airk::RecurrentSequence &each, uint64_t begin, uint64_t end) {
  const airk::PassSequence &sequence = each.sequence;
  const uint64_t cols = call.cols, history = call.kernel - 1;
  const float *x = call.x + sequence.first_token * cols;
  float *state = call.state + each.to * history * cols, *y = call.y + sequence.first_token * cols;
  if (sequence.cached == 0) {
    for (uint64_t j = 0; j < history; j++) std::fill(state + j * cols + begin, state + j * cols + end, 0.0f);
  }
  const float *before = sequence.cached == 0 ? state : call.state + each.from * history * cols;
  // Inputs by position from history tokens before the pass on.
  const auto input = [&](uint64_t position) -> const float * {
    return position < history ? before + position * cols : x + (position - history) * cols;
  };
  for (uint64_t t = 0; t < sequence.tokens; t++) {
    float *to = y + t * cols;
    for (uint64_t c = begin; c < end; c++) to[c] = call.bias ? call.bias[c] : 0.0f;
    for (uint64_t j = 0; j < call.kernel; j++) {
      const float *from = input(t + j), *weight = call.weight + j;
      for (uint64_t c = begin; c < end; c++) to[c] += weight[c * call.kernel] * from[c];
    }
  }
  // Oldest first, so that what is still to be moved is not overwritten.
  for (uint64_t j = 0; j < history; j++) {
    const float *from = input(sequence.tokens + j);
    std::copy(from + begin, from + end, state + j * cols + begin);
  }
}

}  // namespace

extern "C" airk_status airk_causal_conv1d(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias, airk_ptr state,
                                          airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count,
                                          uint64_t tokens, uint64_t cols, uint64_t kernel, int32_t activation) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_causal_conv1d(stream, y, x, weight, bias, state, state_slots, slots, sequences, sequence_count,
                                                        tokens, cols, kernel, activation);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  const Convolution call = {at<float>(y), at<const float>(x), at<const float>(weight), at<const float>(bias), at<float>(state), cols, kernel};
  return airk::enqueue(stream, [=]() -> airk_status {
    std::vector<airk::RecurrentSequence> read;
    const airk_status status = airk::read_recurrent_sequences(context, airk::SequenceUser::causal_conv1d, at<const int32_t>(sequences),
                                                              sequence_count, at<const int32_t>(state_slots), slots, tokens, &read);
    if (status != AIRK_OK) return status;
    const auto gated = airk::row_kernels(context).gated;
    const int64_t grain = std::max<int64_t>(64, airk::grain_of(static_cast<int64_t>(tokens * kernel)));
    airk::parallel_for(context, static_cast<int64_t>(cols), grain, [&](int64_t begin, int64_t end, int) {
      for (const airk::RecurrentSequence &each : read) {
        convolve(call, each, static_cast<uint64_t>(begin), static_cast<uint64_t>(end));
        for (uint64_t t = 0; t < each.sequence.tokens && activation >= 0; t++) {
          float *row = call.y + (each.sequence.first_token + t) * cols + begin;
          gated(row, row, nullptr, end - begin, activation);
        }
      }
    });
    return AIRK_OK;
  });
}
