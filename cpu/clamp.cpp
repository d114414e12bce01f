#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_clamp(airk_stream *stream, airk_ptr y, airk_ptr x, uint64_t count, float limit) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_clamp(stream, y, x, count, limit);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const auto kernel = airk::row_kernels(context).clamp;
    airk::parallel_for(context, static_cast<int64_t>(count), airk::kRunElements, [=](int64_t begin, int64_t end, int) {
      kernel(at<float>(y) + begin, at<const float>(x) + begin, end - begin, limit);
    });
    return AIRK_OK;
  });
}
