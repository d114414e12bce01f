#include <cstring>

#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_gather_rows(airk_stream *stream, airk_ptr y, airk_ptr x, airk_ptr ids, uint64_t count, uint64_t rows,
                                        uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (count == 0) return AIRK_OK;
  const airk_status invalid = airk::check_gather_rows(stream, y, x, ids, count, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=]() -> airk_status {
    const int32_t *id = at<const int32_t>(ids);
    for (uint64_t i = 0; i < count; i++) {
      if (id[i] < 0 || static_cast<uint64_t>(id[i]) >= rows) {
        return airk::fail(context, AIRK_INVALID, "Cannot run gather_rows: ids[%llu] is %d, required is 0 to %llu",
                          static_cast<unsigned long long>(i), id[i], static_cast<unsigned long long>(rows - 1));
      }
    }
    const int64_t grain = airk::grain_of(static_cast<int64_t>(cols));
    airk::parallel_for(context, static_cast<int64_t>(count), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        std::memcpy(at<float>(y) + i * cols, at<const float>(x) + static_cast<uint64_t>(id[i]) * cols, cols * sizeof(float));
      }
    });
    return AIRK_OK;
  });
}
