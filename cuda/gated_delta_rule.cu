// airk_gated_delta_rule: the columns of a state do not know of each other, so a block takes 32 of one head through all tokens of a sequence
// with its part of the state in registers: a lane is a column, a warp has every eighth row.
#include "../cpu/arguments.h"
#include "context.h"
#include "recurrent.h"

namespace airk {
namespace {

constexpr int kWarps = 8, kColumns = 32, kThreads = kWarps * kColumns;

struct DeltaCall {
  float *y;
  const float *q, *k, *v, *log_decay, *beta;
  float *state;
  RecurrentSequences sequences;
  uint64_t q_stride, k_stride, v_stride, key_heads, value_heads, value_dim;
  int key_dim;
  float scale;
  const float *skip;  // nullptr for none
  bool corrects;
  bool key_heads_take_turns;
};

// kRows: of the state that a thread holds; key_dim <= kRows * kWarps.
template <int kRows> __global__ void __launch_bounds__(kThreads) advance(const DeltaCall call) {
  __shared__ float query[kRows * kWarps], key[kRows * kWarps];
  __shared__ float recalled[kWarps][kColumns], read[kWarps][kColumns];
  PassSequence sequence{};
  uint64_t from = 0, to = 0;
  if (!call.sequences.read(blockIdx.z, &sequence, &from, &to)) return;
  if (sequence.tokens == 0) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kColumns, warp = thread / kColumns;
  const uint64_t head = blockIdx.y, key_head = call.key_heads_take_turns ? head % call.key_heads : head / (call.value_heads / call.key_heads);
  const uint64_t col = static_cast<uint64_t>(blockIdx.x) * kColumns + lane;
  const bool exists = col < call.value_dim;
  const uint64_t state_elements = static_cast<uint64_t>(call.key_dim) * call.value_dim;
  const float *before = call.state + (from * call.value_heads + head) * state_elements + col;

  float rows[kRows];
#pragma unroll
  for (int i = 0; i < kRows; i++) {
    const int row = i * kWarps + warp;
    rows[i] = exists && row < call.key_dim && sequence.cached > 0 ? before[static_cast<uint64_t>(row) * call.value_dim] : 0.0f;
  }
  for (uint64_t t = sequence.first_token; t < sequence.first_token + sequence.tokens; t++) {
    const uint64_t gate = t * call.value_heads + head;
    if (thread < kRows * kWarps) {
      const bool has = thread < call.key_dim;
      const uint64_t at = key_head * static_cast<uint64_t>(call.key_dim) + static_cast<uint64_t>(thread);
      query[thread] = has ? call.q[t * call.q_stride + at] : 0.0f;
      key[thread] = has ? call.k[t * call.k_stride + at] : 0.0f;
    }
    __syncthreads();
    const float decay = expf(call.log_decay[gate]);
    float part = 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; i++) {
      rows[i] *= decay;
      part = fmaf(rows[i], key[i * kWarps + warp], part);
    }
    recalled[warp][lane] = part;
    __syncthreads();
    float known = 0.0f;
    if (call.corrects) {
#pragma unroll
      for (int w = 0; w < kWarps; w++) known += recalled[w][lane];
    }
    const float value = exists ? call.v[t * call.v_stride + head * call.value_dim + col] : 0.0f;
    const float change = (value - known) * call.beta[gate];
    part = 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; i++) {
      rows[i] = fmaf(key[i * kWarps + warp], change, rows[i]);
      part = fmaf(rows[i], query[i * kWarps + warp], part);
    }
    read[warp][lane] = part;
    // The next token may have its key and query, and the first warp the sums.
    __syncthreads();
    if (warp == 0 && exists) {
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; w++) sum += read[w][lane];
      call.y[gate * call.value_dim + col] = call.scale * sum + (call.skip ? call.skip[head] * value : 0.0f);
    }
  }
  float *state = call.state + (to * call.value_heads + head) * state_elements + col;
#pragma unroll
  for (int i = 0; i < kRows; i++) {
    const int row = i * kWarps + warp;
    if (exists && row < call.key_dim) state[static_cast<uint64_t>(row) * call.value_dim] = rows[i];
  }
}

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_gated_delta_rule(airk_stream *stream, airk_ptr y, airk_ptr q, uint64_t q_stride, airk_ptr k, uint64_t k_stride,
                                             airk_ptr v, uint64_t v_stride, airk_ptr log_decay, airk_ptr beta, airk_ptr state,
                                             airk_ptr state_slots, uint64_t slots, airk_ptr sequences, uint64_t sequence_count,
                                             uint64_t tokens, uint64_t key_heads, uint64_t value_heads, uint64_t key_dim,
                                             uint64_t value_dim, float scale, airk_ptr skip, int32_t corrects,
                                             int32_t key_heads_take_turns) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0 || sequence_count == 0) return AIRK_OK;
  const airk_status invalid =
      check_gated_delta_rule(stream, y, q, q_stride, k, k_stride, v, v_stride, log_decay, beta, state, state_slots, slots, sequences,
                             sequence_count, tokens, key_heads, value_heads, key_dim, value_dim, scale, skip, corrects);
  if (invalid != AIRK_OK) return invalid;
  constexpr uint64_t kMostHeads = 65535;
  if (sequence_count > kMostSequences || value_heads > kMostHeads) {
    return fail(stream->context, AIRK_UNSUPPORTED, "Cannot run gated_delta_rule: %llu sequences and %llu heads, the CUDA library takes at most %llu each",
                static_cast<unsigned long long>(sequence_count), static_cast<unsigned long long>(value_heads),
                static_cast<unsigned long long>(kMostHeads));
  }
  DeltaCall call = {};
  call.y = at<float>(y);
  call.q = at<const float>(q);
  call.k = at<const float>(k);
  call.v = at<const float>(v);
  call.log_decay = at<const float>(log_decay);
  call.beta = at<const float>(beta);
  call.state = at<float>(state);
  call.sequences = {at<const int>(sequences), at<const int>(state_slots), sequence_count, slots, tokens, SequenceUser::gated_delta_rule,
                    stream->context->device_error};
  call.q_stride = q_stride;
  call.k_stride = k_stride;
  call.v_stride = v_stride;
  call.key_heads = key_heads;
  call.value_heads = value_heads;
  call.value_dim = value_dim;
  call.key_dim = static_cast<int>(key_dim);
  call.scale = scale;
  call.skip = skip ? at<const float>(skip) : nullptr;
  call.corrects = corrects != 0;
  call.key_heads_take_turns = key_heads_take_turns != 0;
  const dim3 grid(static_cast<unsigned>((value_dim + kColumns - 1) / kColumns), static_cast<unsigned>(value_heads),
                  static_cast<unsigned>(sequence_count));
  return enqueue_on(stream, "gated_delta_rule", [=](cudaStream_t handle) {
    const auto start = launch(grid, kThreads, 0, handle);
    if (key_dim <= 64) return start(advance<8>, call);
    if (key_dim <= 128) return start(advance<16>, call);
    static_assert(kMostDeltaKey == 256, "the largest kernel takes it");
    return start(advance<32>, call);
  });
}
