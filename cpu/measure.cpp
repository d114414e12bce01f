// The ceilings that kernels are compared with: memory reads and arithmetic, by all threads of the context.
#include <algorithm>
#include <atomic>
#include <chrono>

#include "kernels.h"

namespace airk {
namespace {

double seconds_of(airk_context *context, int64_t items, int64_t grain, const RangeBody &body) {
  const auto start = std::chrono::steady_clock::now();
  parallel_for(context, items, grain, body);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace
}  // namespace airk

using namespace airk;

airk_status airk_measure_read(airk_context *context, airk_ptr address, uint64_t bytes, int32_t repeats, double *seconds) {
  if (context == nullptr) return AIRK_INVALID;
  constexpr uint64_t step = 512, run_bytes = 256 << 10;
  if (address == 0 || bytes < step || repeats < 1 || seconds == nullptr) {
    return fail(context, AIRK_INVALID, "Cannot measure reads of %llu bytes, %d times: required %llu bytes and 1 time at least",
                static_cast<unsigned long long>(bytes), repeats, static_cast<unsigned long long>(step));
  }
  const Kernels &kernels = *kernels_of(isa_of(context));
  const uint8_t *from = at<const uint8_t>(address);
  const uint64_t whole = bytes / step * step;
  std::atomic<uint64_t> read{0};
  *seconds = 1e300;
  for (int32_t i = 0; i < repeats; i++) {
    if (cancelled(context)) return fail(context, AIRK_CANCELLED, "Cannot measure reads: cancelled");
    const double pass = seconds_of(context, static_cast<int64_t>((whole + run_bytes - 1) / run_bytes), 1, [&](int64_t begin, int64_t end, int) {
      const uint64_t first = static_cast<uint64_t>(begin) * run_bytes;
      read += kernels.read(from + first, std::min(static_cast<uint64_t>(end) * run_bytes, whole) - first);
    });
    *seconds = std::min(*seconds, pass * static_cast<double>(bytes) / static_cast<double>(whole));
  }
  return AIRK_OK;
}

airk_status airk_measure_peak(airk_context *context, int32_t kind, double *flops_per_second) {
  if (context == nullptr) return AIRK_INVALID;
  if ((kind != 0 && kind != 1) || flops_per_second == nullptr) return fail(context, AIRK_INVALID, "Cannot measure the peak of kind %d, required 0 or 1", kind);
  const Isa isa = isa_of(context);
  double (*peak)(int64_t) = kernels_of(isa)->peak;
#if defined(__x86_64__)
  if (kind == 1 && isa == Isa::amx) peak = peak_amx;
  if (kind == 1 && isa == Isa::avx512) peak = peak_integers_avx512;
#endif
  constexpr int64_t repeats = 1 << 18;
  *flops_per_second = 0.0;
  for (int pass = 0; pass < 5; pass++) {
    std::atomic<int64_t> operations{0};
    const double seconds = seconds_of(context, thread_count(context) * 8, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) operations += static_cast<int64_t>(peak(repeats));
    });
    *flops_per_second = std::max(*flops_per_second, static_cast<double>(operations) / seconds);
  }
  return AIRK_OK;
}
