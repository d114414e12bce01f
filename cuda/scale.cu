#include "../cpu/arguments.h"
#include "activations.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__global__ void __launch_bounds__(kElementThreads) scale(float *y, const float *x, uint64_t count, float factor, float softcap) {
  for (uint64_t i = first_element(); i < count; i += element_step()) {
    const float value = factor * x[i];
    y[i] = softcap == 0.0f ? value : soft_capped(value, softcap);
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_scale(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float factor, float softcap) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_scale(stream, y, x, count, softcap);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "scale", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(airk::scale, at<float>(y), at<const float>(x), count,
                                                                                       factor, softcap);
  });
}
