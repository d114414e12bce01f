#include "../cpu/arguments.h"
#include "activations.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__global__ void __launch_bounds__(kElementThreads)
    gated(float *y, const float *gate, const float *up, uint64_t count, int activation) {
  for (uint64_t i = first_element(); i < count; i += element_step()) {
    if (activation == AIRK_SWIGLU_OAI) {
      y[i] = swiglu_oai(gate[i], up[i]);
    } else {
      const float value = activation < 0 ? gate[i] : activate(activation, gate[i]);
      y[i] = up ? value * up[i] : value;
    }
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_gated(airk_stream *stream, airk_ptr y, airk_ptr gate, airk_ptr up, uint64_t count, int32_t activation) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_gated(stream, y, gate, up, count, activation);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "gated", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(airk::gated, at<float>(y), at<const float>(gate),
                                                                                       at<const float>(up), count, activation);
  });
}
