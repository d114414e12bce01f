// airk_matmul: validation, and the choice of the kernel.
#include "../cpu/arguments.h"
#include "context.h"
#include "matmul.h"

using namespace airk;

extern "C" airk_status airk_matmul(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens,
                                   int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols,
                                   uint64_t outliers, airk_ptr bias, int32_t continues, int32_t precision) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = stream->context;
  MatmulCall call;
  airk_status status = view_weight(context, "matmul", format, weight, weight_bytes, rows, cols, outliers, &call.weight);
  if (status == AIRK_OK) status = check_matmul(context, y, y_stride, x, x_stride, tokens, rows, cols, bias, continues, precision);
  if (status != AIRK_OK || tokens == 0) return status;
  if (rows > kMostGridRows || tokens > kMostGridTokens) {
    return fail(context, AIRK_UNSUPPORTED, "Cannot matmul: %llu rows and %llu tokens, required are at most %llu and %llu",
                static_cast<unsigned long long>(rows), static_cast<unsigned long long>(tokens),
                static_cast<unsigned long long>(kMostGridRows), static_cast<unsigned long long>(kMostGridTokens));
  }
  call.x = at<const float>(x);
  call.y = at<float>(y);
  call.bias = at<const float>(bias);
  call.x_stride = x_stride;
  call.y_stride = y_stride;
  call.tokens = static_cast<int>(tokens);
  call.error = context->device_error;
  const bool few = tokens <= kMostRowTokens, tensor = !few && precision == 1 && context->major >= 8;
  // Packed activations serve all extents of a matrix.
  const ScratchLabel label = {x, x_stride, tokens, cols, static_cast<uint64_t>(format)};
  void *packed = tensor && continues == 1 ? kept_scratch(stream, label) : nullptr;
  const bool packs = tensor && packed == nullptr;
  if (packs && may_enqueue(stream)) status = scratch_of(stream, "matmul", tensor_scratch_bytes(call), &packed);
  if (status != AIRK_OK) return status;
  return enqueue_on(stream, "matmul", [&](cudaStream_t handle) {
    if (few) return matmul_rows(call, handle);
    if (!tensor) return matmul_tiles(call, handle);
    const cudaError_t error = packs ? pack_activations(call, packed, handle) : cudaSuccess;
    if (error != cudaSuccess) return error;
    keep_scratch(stream, label);
    return matmul_tensor(call, packed, handle);
  });
}
