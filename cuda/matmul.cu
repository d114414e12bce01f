// airk_matmul and airk_matmul_grouped: validation, and the choice of the kernel.
#include <algorithm>

#include "../cpu/arguments.h"
#include "context.h"
#include "matmul.h"

namespace airk {
namespace {

// Of the packed activations of a product by groups; more groups are multiplied in turns.
constexpr uint64_t kMostPackedBytes = 32 << 20;
constexpr uint64_t kMostGroups = 65535;  // that a grid's z can count

unsigned long long print(uint64_t value) { return value; }

// Fills all that a plain product needs.
airk_status describe(airk_context *context, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens, airk_ptr bias,
                     MatmulCall *call) {
  const uint64_t rows = call->weight.rows;
  if (rows > kMostGridRows || tokens > kMostGridTokens) {
    return fail(context, AIRK_UNSUPPORTED, "Cannot matmul: %llu rows and %llu tokens, required are at most %llu and %llu", print(rows),
                print(tokens), print(kMostGridRows), print(kMostGridTokens));
  }
  call->x = at<const float>(x);
  call->y = at<float>(y);
  call->bias = at<const float>(bias);
  call->x_stride = x_stride;
  call->y_stride = y_stride;
  call->tokens = static_cast<int>(tokens);
  call->error = context->device_error;
  call->group_rows = rows;
  call->groups = 1;
  return AIRK_OK;
}

bool takes_tensor_cores(const airk_context *context, uint64_t tokens, int32_t precision) {
  return tokens > kMostRowTokens && precision == 1 && context->major >= 8;
}

}  // namespace
}  // namespace airk

using namespace airk;

extern "C" airk_status airk_matmul(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride, uint64_t tokens,
                                   int32_t format, airk_ptr weight, uint64_t weight_bytes, uint64_t rows, uint64_t cols,
                                   uint64_t outliers, airk_ptr bias, int32_t continues, int32_t precision) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = stream->context;
  MatmulCall call = {};
  airk_status status = view_weight(context, "matmul", format, weight, weight_bytes, rows, cols, outliers, &call.weight);
  if (status == AIRK_OK) status = check_matmul(context, y, y_stride, x, x_stride, tokens, rows, cols, bias, continues, precision);
  if (status != AIRK_OK || tokens == 0) return status;
  status = describe(context, y, y_stride, x, x_stride, tokens, bias, &call);
  if (status != AIRK_OK) return status;
  const bool few = tokens <= kMostRowTokens, tensor = takes_tensor_cores(context, tokens, precision);
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

extern "C" airk_status airk_matmul_grouped(airk_stream *stream, airk_ptr y, uint64_t y_stride, airk_ptr x, uint64_t x_stride,
                                           uint64_t x_group_stride, uint64_t tokens, int32_t format, airk_ptr weight,
                                           uint64_t weight_bytes, uint64_t rows, uint64_t cols, uint64_t outliers, airk_ptr bias,
                                           uint64_t first_row, uint64_t group_rows, int32_t precision) {
  if (stream == nullptr) return AIRK_INVALID;
  airk_context *context = stream->context;
  MatmulCall call = {};
  airk_status status = view_weight(context, "matmul", format, weight, weight_bytes, rows, cols, outliers, &call.weight);
  if (status == AIRK_OK) {
    status = check_matmul_grouped(context, y, y_stride, x, x_stride, x_group_stride, tokens, rows, cols, bias, first_row, group_rows, precision);
  }
  if (status != AIRK_OK || tokens == 0) return status;
  status = describe(context, y, y_stride, x, x_stride, tokens, bias, &call);
  if (status != AIRK_OK) return status;
  call.first_row = first_row;
  call.group_rows = group_rows;
  call.x_group_stride = x_group_stride;
  const uint64_t first_group = first_row / group_rows, end_group = (first_row + rows - 1) / group_rows + 1;
  const bool few = tokens <= kMostRowTokens, tensor = takes_tensor_cores(context, tokens, precision);
  const uint64_t fitting = tensor ? std::max<uint64_t>(1, kMostPackedBytes / tensor_scratch_bytes(call)) : kMostGroups;
  const uint64_t turn = std::min({fitting, kMostGroups, end_group - first_group});
  void *packed = nullptr;
  call.groups = static_cast<unsigned>(turn);
  if (tensor && may_enqueue(stream)) status = scratch_of(stream, "matmul", tensor_scratch_bytes(call), &packed);
  if (status != AIRK_OK) return status;
  return enqueue_on(stream, "matmul", [&](cudaStream_t handle) {
    cudaError_t error = cudaSuccess;
    for (uint64_t group = first_group; group < end_group && error == cudaSuccess; group += turn) {
      call.first_group = group;
      call.groups = static_cast<unsigned>(std::min(turn, end_group - group));
      if (tensor) error = pack_activations(call, packed, handle);
      if (error != cudaSuccess) break;
      error = few ? matmul_rows(call, handle) : tensor ? matmul_tensor(call, packed, handle) : matmul_tiles(call, handle);
    }
    return error;
  });
}
