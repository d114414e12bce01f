// Products of 1 to 8 tokens of our own formats, and of weights that lie so that they are decoded one by one.
#include "matmul_rows_kernel.h"

namespace airk {

cudaError_t matmul_rows(const MatmulCall &call, cudaStream_t stream) {
  if (takes_blocks(call.weight)) return matmul_rows_by_blocks(call, stream);
  return for_format(call.weight.format, [&](auto format) { return multiply_with<Decoder<decltype(format)::value>>(call, stream); });
}

}  // namespace airk
