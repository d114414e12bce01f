#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__global__ void __launch_bounds__(kElementThreads) add(float *y, const float *x, uint64_t count, float factor) {
  for (uint64_t i = first_element(); i < count; i += element_step()) y[i] = fmaf(factor, x[i], y[i]);
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_add(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float factor) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_add(stream, y, x, count);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "add", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(airk::add, at<float>(y), at<const float>(x), count,
                                                                                       factor);
  });
}
