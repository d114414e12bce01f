#include <algorithm>

#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_scatter_add(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, airk_ptr weights, uint64_t count,
                                        uint64_t rows, uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_scatter_add(stream, y, x, ids, weights, count, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=]() -> airk_status {
    const int32_t *id = at<const int32_t>(ids);
    for (uint64_t i = 0; i < count; i++) {
      if (id[i] < 0 || static_cast<uint64_t>(id[i]) >= rows) {
        return airk::fail(context, AIRK_INVALID, "Cannot run scatter_add: ids[%llu] is %d, required is 0 to %llu",
                          static_cast<unsigned long long>(i), id[i], static_cast<unsigned long long>(rows - 1));
      }
    }
    // Threads share the columns, not the rows: so an id may repeat and its sum still has one order.
    const auto add = airk::row_kernels(context).add;
    const int64_t grain = std::max<int64_t>(64, airk::grain_of(static_cast<int64_t>(std::min<uint64_t>(count, airk::kRunElements))));
    airk::parallel_for(context, static_cast<int64_t>(cols), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t i = 0; i < count; i++) {
        const uint64_t to = static_cast<uint64_t>(id[i]) * cols, first = static_cast<uint64_t>(begin);
        add(at<float>(y) + to + first, at<const float>(x) + i * cols + first, end - begin, weights ? at<const float>(weights)[i] : 1.0f);
      }
    });
    return AIRK_OK;
  });
}
