#include "simd_avx2.h"

#include "attention_kernel_impl.h"

const airk::AttentionKernel airk::kAttentionAvx2F16 = airk::kKernel<uint16_t>;
const airk::AttentionKernel airk::kAttentionAvx2F32 = airk::kKernel<float>;
