#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

// A thread rotates one pair of elements, i and i + half.
__global__ void __launch_bounds__(kElementThreads)
    rope(float *x, const float *cosine, const float *sine, uint64_t pairs, uint64_t heads, uint64_t head_dim, uint64_t half) {
  for (uint64_t i = first_element(); i < pairs; i += element_step()) {
    const uint64_t head = i / half, element = i % half, angle = head / heads * half + element;
    float *first = x + head * head_dim + element, *second = first + half;
    const float a = *first, b = *second, c = cosine[angle], s = sine[angle];
    *first = a * c - b * s;
    *second = b * c + a * s;
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_rope(airk_stream *stream, airk_ptr x, airk_ptr cos, airk_ptr sin, uint64_t tokens, uint64_t heads,
                                 uint64_t head_dim, uint64_t rotary_dim) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid = airk::check_rope(stream, x, cos, sin, tokens, heads, head_dim, rotary_dim);
  if (invalid != AIRK_OK) return invalid;
  const uint64_t half = rotary_dim / 2, pairs = tokens * heads * half;
  return airk::enqueue_on(stream, "rope", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(pairs), airk::kElementThreads, 0, handle)(airk::rope, at<float>(x), at<const float>(cos),
                                                                                       at<const float>(sin), pairs, heads, head_dim, half);
  });
}
