#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__global__ void __launch_bounds__(kElementThreads) swiglu(float *y, const float *gate, const float *up, uint64_t count) {
  for (uint64_t i = first_element(); i < count; i += element_step()) {
    const float g = gate[i];
    y[i] = g / (1.0f + expf(-g)) * up[i];
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_swiglu(airk_stream *stream, airk_ptr y, airk_ptr gate, airk_ptr up, uint64_t count) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_swiglu(stream, y, gate, up, count);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "swiglu", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(airk::swiglu, at<float>(y), at<const float>(gate),
                                                                                       at<const float>(up), count);
  });
}
