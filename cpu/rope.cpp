#include "arguments.h"
#include "row_kernels.h"

using airk::at;

extern "C" airk_status airk_rope(airk_stream *stream, airk_ptr x, uint64_t x_stride, airk_ptr cos, airk_ptr sin, uint64_t tokens,
                                 uint64_t heads, uint64_t head_dim, uint64_t first, uint64_t rotary_dim, int32_t interleaved) {
  if (!stream) return AIRK_INVALID;
  if (tokens == 0) return AIRK_OK;
  const airk_status invalid = airk::check_rope(stream, x, x_stride, cos, sin, tokens, heads, head_dim, first, rotary_dim, interleaved);
  if (invalid != AIRK_OK) return invalid;
  airk_context *context = airk::context_of(stream);
  return airk::enqueue(stream, [=] {
    const airk::RowKernels &kernels = airk::row_kernels(context);
    const auto kernel = interleaved ? kernels.rotate_pairs : kernels.rotate;
    const uint64_t half = rotary_dim / 2;
    const int64_t grain = airk::grain_of(static_cast<int64_t>(rotary_dim));
    airk::parallel_for(context, static_cast<int64_t>(tokens * heads), grain, [=](int64_t begin, int64_t end, int) {
      for (uint64_t i = static_cast<uint64_t>(begin); i < static_cast<uint64_t>(end); i++) {
        const uint64_t token = i / heads, head = i % heads;
        kernel(at<float>(x) + token * x_stride + head * head_dim + first, at<const float>(cos) + token * half, at<const float>(sin) + token * half,
               static_cast<int64_t>(half));
      }
    });
    return AIRK_OK;
  });
}
