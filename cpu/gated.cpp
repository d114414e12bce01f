#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_gated(airk_stream *stream, airk_ptr y, airk_ptr gate, airk_ptr up, uint64_t count, int32_t activation) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_gated(stream, y, gate, up, count, activation);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const auto kernel = airk::row_kernels(context).gated;
    airk::parallel_for(context, static_cast<int64_t>(count), airk::kRunElements, [=](int64_t begin, int64_t end, int) {
      kernel(at<float>(y) + begin, at<const float>(gate) + begin, up ? at<const float>(up) + begin : nullptr, end - begin, activation);
    });
    return AIRK_OK;
  });
}
