// airk_causal_conv1d: one kernel computes all outputs from inputs and states, a second one then brings the states up to date.
#include "../cpu/arguments.h"
#include "activations.h"
#include "context.h"
#include "elementwise.h"
#include "recurrent.h"

namespace airk {
namespace {

struct ConvCall {
  float *y;
  const float *x, *weight, *bias;
  float *state;
  RecurrentSequences sequences;
  uint64_t cols;
  int kernel, activation;
};

// The inputs of one column of a sequence, by position from kernel - 1 tokens before the pass on.
struct Inputs {
  const float *before, *now;  // before: nullptr where the sequence starts
  int64_t history;
  uint64_t cols;
  __device__ float at(int64_t position) const {
    if (position >= history) return now[static_cast<uint64_t>(position - history) * cols];
    return before ? before[static_cast<uint64_t>(position) * cols] : 0.0f;
  }
};

__device__ Inputs inputs_of(const ConvCall &call, const PassSequence &sequence, uint64_t from, uint64_t col) {
  const int64_t history = call.kernel - 1;
  const float *before = call.state + from * static_cast<uint64_t>(history) * call.cols + col;
  return {sequence.cached == 0 ? nullptr : before, call.x + sequence.first_token * call.cols + col, history, call.cols};
}

// A thread a column, blocks of y over the tokens, of z over the sequences.
__global__ void __launch_bounds__(kElementThreads) convolve(const ConvCall call) {
  PassSequence sequence{};
  uint64_t from = 0, to = 0;
  if (!call.sequences.read(blockIdx.z, &sequence, &from, &to)) return;
  const uint64_t col = first_element();
  if (col >= call.cols) return;
  const Inputs inputs = inputs_of(call, sequence, from, col);
  for (uint64_t t = blockIdx.y; t < sequence.tokens; t += gridDim.y) {
    float sum = call.bias ? call.bias[col] : 0.0f;
    for (int j = 0; j < call.kernel; j++) {
      sum = fmaf(call.weight[col * static_cast<uint64_t>(call.kernel) + static_cast<uint64_t>(j)], inputs.at(static_cast<int64_t>(t) + j), sum);
    }
    call.y[(sequence.first_token + t) * call.cols + col] = call.activation < 0 ? sum : activate(call.activation, sum);
  }
}

__global__ void __launch_bounds__(kElementThreads) keep_inputs(const ConvCall call) {
  PassSequence sequence{};
  uint64_t from = 0, to = 0;
  if (!call.sequences.read(blockIdx.z, &sequence, &from, &to)) return;
  const uint64_t col = first_element();
  if (col >= call.cols || sequence.tokens == 0) return;
  const Inputs inputs = inputs_of(call, sequence, from, col);
  float *state = call.state + to * static_cast<uint64_t>(inputs.history) * call.cols + col;
  // Oldest first, so that what is still to be moved is not overwritten.
  for (int64_t j = 0; j < inputs.history; j++) {
    state[static_cast<uint64_t>(j) * call.cols] = inputs.at(static_cast<int64_t>(sequence.tokens) + j);
  }
}

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_causal_conv1d(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr weight, airk_ptr bias, airk_ptr state,
                                          airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count,
                                          uint64_t tokens, uint64_t cols, uint64_t kernel, int32_t activation) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  const airk_status invalid = check_causal_conv1d(stream, y, x, weight, bias, state, state_slots, slots, sequences, sequence_count, tokens,
                                                  cols, kernel, activation);
  if (invalid != AIRK_OK) return invalid;
  if (sequence_count > kMostSequences || cols > 1ull << 32) {
    return fail(stream->context, AIRK_UNSUPPORTED, "Cannot run causal_conv1d: %llu sequences and %llu columns, the CUDA library takes at most %llu and 2^32",
                static_cast<unsigned long long>(sequence_count), static_cast<unsigned long long>(cols),
                static_cast<unsigned long long>(kMostSequences));
  }
  const RecurrentSequences read = {at<const int>(sequences), at<const int>(state_slots), sequence_count, slots, tokens,
                                   SequenceUser::causal_conv1d, stream->context->device_error};
  const ConvCall call = {at<float>(y), at<const float>(x), at<const float>(weight), at<const float>(bias), at<float>(state), read, cols,
                         static_cast<int>(kernel), activation};
  const unsigned blocks = static_cast<unsigned>((cols + kElementThreads - 1) / kElementThreads), count = static_cast<unsigned>(sequence_count);
  return enqueue_on(stream, "causal_conv1d", [=](cudaStream_t handle) {
    const unsigned token_blocks = static_cast<unsigned>(std::min<uint64_t>(tokens, 256));
    const cudaError_t error = launch(dim3(blocks, token_blocks, count), kElementThreads, 0, handle)(convolve, call);
    if (error != cudaSuccess) return error;
    return launch(dim3(blocks, 1, count), kElementThreads, 0, handle)(keep_inputs, call);
  });
}
