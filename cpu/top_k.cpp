#include <algorithm>
#include <functional>

#include "arguments.h"
#include "order.h"

using airk::at;

namespace {

// Columns that one thread takes at a time: far more than k, so that few candidates are left to merge.
constexpr uint64_t kRunColumns = 32768;

// Writes the keys of the k largest of x[begin .. end), in no order. Returns how many.
uint64_t select(const float *x, uint64_t begin, uint64_t end, uint64_t k, uint64_t *heap) {
  const uint64_t count = std::min(k, end - begin);
  for (uint64_t i = 0; i < count; i++) heap[i] = airk::order_key(x[begin + i], static_cast<uint32_t>(begin + i));
  // The smallest kept key is on top; most of a row falls below it at once.
  std::make_heap(heap, heap + count, std::greater<uint64_t>());
  float floor = x[airk::order_index(heap[0])];
  for (uint64_t i = begin + count; i < end; i++) {
    // False for NaN on either side: the keys decide.
    if (x[i] < floor) continue;
    const uint64_t key = airk::order_key(x[i], static_cast<uint32_t>(i));
    if (key <= heap[0]) continue;
    std::pop_heap(heap, heap + count, std::greater<uint64_t>());
    heap[count - 1] = key;
    std::push_heap(heap, heap + count, std::greater<uint64_t>());
    floor = x[airk::order_index(heap[0])];
  }
  return count;
}

}  // namespace

extern "C" airk_status airk_top_k(airk_stream *stream, airk_ptr value, airk_ptr index, airk_ptr x, uint64_t rows, uint64_t cols,
                                  uint64_t k) {
  if (!stream) return AIRK_INVALID;
  if (rows == 0) return AIRK_OK;
  const airk_status invalid = airk::check_top_k(stream, value, index, x, rows, cols, k);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=]() -> airk_status {
    const uint64_t runs = (cols + kRunColumns - 1) / kRunColumns;
    // [rows, runs, k]; only a row's last run may have fewer than k columns.
    uint64_t *keys = static_cast<uint64_t *>(airk::scratch(context, rows * runs * k * sizeof(uint64_t)));
    if (!keys) return airk::fail(context, AIRK_OUT_OF_MEMORY, "Cannot run top_k: no memory for its candidates");
    const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(kRunColumns / 2 / cols));
    airk::parallel_for(context, static_cast<int64_t>(rows * runs), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        const uint64_t row = i / runs, from = i % runs * kRunColumns;
        select(at<const float>(x) + row * cols, from, std::min(cols, from + kRunColumns), k, keys + i * k);
      }
    });
    const uint64_t last = std::min(k, cols - (runs - 1) * kRunColumns), candidates = (runs - 1) * k + last;
    airk::parallel_for(context, static_cast<int64_t>(rows), std::max<int64_t>(1, 1024 / static_cast<int64_t>(candidates)),
                       [=](int64_t begin, int64_t end, int) {
      for (uint64_t row = static_cast<uint64_t>(begin); row < static_cast<uint64_t>(end); row++) {
        uint64_t *of_row = keys + row * runs * k;
        std::partial_sort(of_row, of_row + k, of_row + candidates, std::greater<uint64_t>());
        for (uint64_t i = 0; i < k; i++) {
          const uint32_t column = airk::order_index(of_row[i]);
          at<int32_t>(index)[row * k + i] = static_cast<int32_t>(column);
          at<float>(value)[row * k + i] = at<const float>(x)[row * cols + column];
        }
      }
    });
    return AIRK_OK;
  });
}
