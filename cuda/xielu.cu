#include "../cpu/arguments.h"
#include "context.h"
#include "elementwise.h"

namespace airk {
namespace {

// log(1 + e^x) without overflow.
__device__ __forceinline__ float softplus(float x) { return (x > 0.0f ? x : 0.0f) + log1pf(expf(x > 0.0f ? -x : x)); }

__global__ void __launch_bounds__(kElementThreads)
    xielu(float *y, const float *x, const float *alpha_p, const float *alpha_n, const float *beta, const float *eps, uint64_t count) {
  const float slope = *beta, least = *eps;
  const float positive = softplus(*alpha_p), negative = slope + softplus(*alpha_n);
  for (uint64_t i = first_element(); i < count; i += element_step()) {
    const float v = x[i];
    // Comparisons, since fminf would hide NaN.
    y[i] = fmaf(slope, v, v > 0.0f ? positive * (v * v) : negative * (expm1f(v > least ? least : v) - v));
  }
}

}  // namespace
}  // namespace airk

using airk::at;

extern "C" airk_status airk_xielu(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr alpha_p, airk_ptr alpha_n, airk_ptr beta,
                                  airk_ptr eps, uint64_t count) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_xielu(stream, y, x, alpha_p, alpha_n, beta, eps, count);
  if (invalid != AIRK_OK) return invalid;
  return airk::enqueue_on(stream, "xielu", [=](cudaStream_t handle) {
    return airk::launch(airk::element_blocks(count), airk::kElementThreads, 0, handle)(
        airk::xielu, at<float>(y), at<const float>(x), at<const float>(alpha_p), at<const float>(alpha_n), at<const float>(beta),
        at<const float>(eps), count);
  });
}
