// Products of 1 to 8 tokens of packed and dense weights that are read 16 bytes at a time.
#include "matmul_rows_kernel.h"

namespace airk {

cudaError_t matmul_rows_by_blocks(const MatmulCall &call, cudaStream_t stream) {
  switch (call.weight.format) {
    case Format::f32:
      return multiply_with<DenseBlockDecoder<Format::f32>>(call, stream);
    case Format::f16:
      return multiply_with<DenseBlockDecoder<Format::f16>>(call, stream);
    case Format::bf16:
      return multiply_with<DenseBlockDecoder<Format::bf16>>(call, stream);
    default:
      break;
  }
  switch (call.weight.packed.packing.family) {
    case Family::bnb4:
      return multiply_with<BlockDecoder<Family::bnb4>>(call, stream);
    case Family::int4:
      return multiply_with<BlockDecoder<Family::int4>>(call, stream);
    case Family::int8:
      return multiply_with<BlockDecoder<Family::int8>>(call, stream);
    case Family::fp8:
      return multiply_with<BlockDecoder<Family::fp8>>(call, stream);
    case Family::mxfp4:
      return multiply_with<BlockDecoder<Family::mxfp4>>(call, stream);
    case Family::nvfp4:
      return multiply_with<BlockDecoder<Family::nvfp4>>(call, stream);
    case Family::q4_k:
      return multiply_with<BlockDecoder<Family::q4_k>>(call, stream);
    case Family::q5_k:
      return multiply_with<BlockDecoder<Family::q5_k>>(call, stream);
    case Family::q6_k:
      return multiply_with<BlockDecoder<Family::q6_k>>(call, stream);
    case Family::iq4_nl:
      return multiply_with<BlockDecoder<Family::iq4_nl>>(call, stream);
    case Family::q4_1:
      return multiply_with<BlockDecoder<Family::q4_1>>(call, stream);
    case Family::q5_0:
      return multiply_with<BlockDecoder<Family::q5_0>>(call, stream);
    case Family::q5_1:
      return multiply_with<BlockDecoder<Family::q5_1>>(call, stream);
    case Family::q2_k:
      return multiply_with<BlockDecoder<Family::q2_k>>(call, stream);
    case Family::q3_k:
      return multiply_with<BlockDecoder<Family::q3_k>>(call, stream);
    case Family::iq4_xs:
      return multiply_with<BlockDecoder<Family::iq4_xs>>(call, stream);
    case Family::tq2_0:
      return multiply_with<BlockDecoder<Family::tq2_0>>(call, stream);
    case Family::iq2_xxs:
      return multiply_with<BlockDecoder<Family::iq2_xxs>>(call, stream);
    case Family::iq2_xs:
      return multiply_with<BlockDecoder<Family::iq2_xs>>(call, stream);
    case Family::iq2_s:
      return multiply_with<BlockDecoder<Family::iq2_s>>(call, stream);
    case Family::iq3_xxs:
      return multiply_with<BlockDecoder<Family::iq3_xxs>>(call, stream);
    case Family::iq3_s:
      return multiply_with<BlockDecoder<Family::iq3_s>>(call, stream);
    case Family::iq1_s:
      return multiply_with<BlockDecoder<Family::iq1_s>>(call, stream);
    case Family::iq1_m:
      return multiply_with<BlockDecoder<Family::iq1_m>>(call, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace airk
