#include "simd_avx512.h"

#include "attention_kernel_impl.h"

const airk::AttentionKernel airk::kAttentionAvx512F16 = airk::kKernel<uint16_t>;
const airk::AttentionKernel airk::kAttentionAvx512F32 = airk::kKernel<float>;
