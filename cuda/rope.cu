#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

struct RopeCall {
  float *x;  // element `first` of the first head
  const float *cosine, *sine;
  uint64_t pairs, heads, head_dim, half, x_stride;
  int interleaved;
};

// A thread rotates one pair of elements.
__global__ void __launch_bounds__(kElementThreads) rope(const RopeCall call) {
  const uint64_t step = call.interleaved ? 2 : 1, apart = call.interleaved ? 1 : call.half;
  for (uint64_t i = first_element(); i < call.pairs; i += element_step()) {
    const uint64_t row = i / call.half, pair = i % call.half, token = row / call.heads, head = row % call.heads;
    float *first = call.x + token * call.x_stride + head * call.head_dim + pair * step, *second = first + apart;
    const float a = *first, b = *second, c = call.cosine[token * call.half + pair], s = call.sine[token * call.half + pair];
    *first = a * c - b * s;
    *second = b * c + a * s;
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_rope(airk_stream *stream, airk_ptr x, uint64_t x_stride, airk_ptr cos, airk_ptr sin, uint64_t tokens,
                                 uint64_t heads, uint64_t head_dim, uint64_t first, uint64_t rotary_dim, int32_t interleaved) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid = airk::check_rope(stream, x, x_stride, cos, sin, tokens, heads, head_dim, first, rotary_dim, interleaved);
  if (invalid != AIRK_OK) return invalid;
  const uint64_t half = rotary_dim / 2;
  const airk::RopeCall call = {at<float>(x) + first, at<const float>(cos), at<const float>(sin), tokens * heads * half, heads, head_dim,
                               half, x_stride, interleaved};
  return airk::enqueue_on(stream, "rope", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(call.pairs), airk::kElementThreads, 0, handle)(airk::rope, call);
  });
}
