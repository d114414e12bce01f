#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

// Comparisons, since fminf would hide NaN.
__global__ void __launch_bounds__(kElementThreads) clamp(float *y, const float *x, uint64_t count, float limit) {
  for (uint64_t i = first_element(); i < count; i += element_step()) {
    const float v = x[i];
    y[i] = v > limit ? limit : v < -limit ? -limit : v;
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_clamp(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float limit) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_clamp(stream, y, x, count, limit);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "clamp", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(airk::clamp, at<float>(y), at<const float>(x), count,
                                                                                       limit);
  });
}
