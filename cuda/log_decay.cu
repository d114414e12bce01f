#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

__global__ void __launch_bounds__(kElementThreads)
    log_decay(float *y, const float *x, const float *a_log, const float *bias, uint64_t count, uint64_t cols) {
  for (uint64_t i = first_element(); i < count; i += element_step()) {
    const float v = x[i] + bias[i % cols];
    // log(1 + e^v) without overflow: for v > 0 it is v + log(1 + e^-v). Comparisons, since fmaxf would hide NaN.
    const float e = expf(v > 0.0f ? -v : v), u = 1.0f + e;
    // Kahan's log(1 + e): what 1 + e loses in rounding is made up by the quotient.
    const float softplus = (v > 0.0f ? v : 0.0f) + (u == 1.0f ? e : logf(u) * (e / (u - 1.0f)));
    y[i] = -expf(a_log[i % cols]) * softplus;
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_log_decay(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr a_log, airk_ptr bias, uint64_t rows,
                                      uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_log_decay(stream, y, x, a_log, bias, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  const uint64_t count = rows * cols;
  return airk::enqueue_on(stream, "log_decay", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(
        airk::log_decay, at<float>(y), at<const float>(x), at<const float>(a_log), at<const float>(bias), count, cols);
  });
}
