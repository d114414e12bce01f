#include <cmath>

#include "arguments.h"
#include "row_kernels.h"

using airk::at;

namespace {

// log(1 + e^x) without overflow.
float softplus(float x) { return (x > 0 ? x : 0) + std::log1p(std::exp(x > 0 ? -x : x)); }

}  // namespace

extern "C" airk_status airk_xielu(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr alpha_p, airk_ptr alpha_n, airk_ptr beta,
                                  airk_ptr eps, uint64_t count) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_xielu(stream, y, x, alpha_p, alpha_n, beta, eps, count);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const auto kernel = airk::row_kernels(context).xielu;
    const float slope = *at<const float>(beta), least = *at<const float>(eps);
    const float positive = softplus(*at<const float>(alpha_p)), negative = slope + softplus(*at<const float>(alpha_n));
    airk::parallel_for(context, static_cast<int64_t>(count), airk::kRunElements, [=](int64_t begin, int64_t end, int) {
      kernel(at<float>(y) + begin, at<const float>(x) + begin, end - begin, positive, negative, slope, least);
    });
    return AIRK_OK;
  });
}
