#include <algorithm>
#include <limits>

#include "arguments.h"
#include "order.h"

using airk::at;

namespace {

// Columns that one thread takes at a time.
constexpr uint64_t kRunColumns = 16384;

// Key of the largest of x[begin .. end).
uint64_t largest(const float *x, uint64_t begin, uint64_t end) {
  // Many maxima side by side, so that the compiler can use vectors; a comparison with NaN keeps the old one.
  constexpr int kLanes = 32;
  float lanes[kLanes];
  for (float &lane : lanes) lane = -std::numeric_limits<float>::infinity();
  uint64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int j = 0; j < kLanes; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  }
  float most = lanes[0];
  for (float lane : lanes) most = lane > most ? lane : most;
  for (; i < end; i++) most = x[i] > most ? x[i] : most;
  for (i = begin; i < end; i++) {
    if (x[i] == most) return airk::order_key(most, static_cast<uint32_t>(i));
  }
  // Nothing but NaN.
  return airk::order_key(std::numeric_limits<float>::quiet_NaN(), static_cast<uint32_t>(begin));
}

}  // namespace

extern "C" airk_status airk_argmax(airk_stream *stream, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_argmax(stream, index, x, rows, cols);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=]() -> airk_status {
    const uint64_t runs = (cols + kRunColumns - 1) / kRunColumns;
    uint64_t *keys = static_cast<uint64_t *>(airk::scratch(context, rows * runs * sizeof(uint64_t)));
    if (!keys) return airk::fail(context, AIRK_OUT_OF_MEMORY, "Cannot run argmax: no memory for its runs");
    const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kRunColumns / cols));
    airk::parallel_for(context, static_cast<int64_t>(rows * runs), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        const uint64_t row = i / runs, from = i % runs * kRunColumns;
        keys[i] = largest(at<const float>(x) + row * cols, from, std::min(cols, from + kRunColumns));
      }
    });
    for (uint64_t row = 0; row < rows; row++) {
      const uint64_t key = *std::max_element(keys + row * runs, keys + (row + 1) * runs);
      at<int32_t>(index)[row] = static_cast<int32_t>(airk::order_index(key));
    }
    return AIRK_OK;
  });
}
