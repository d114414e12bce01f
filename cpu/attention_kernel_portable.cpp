#include "simd_portable.h"

#include "attention_kernel_impl.h"

const airk::AttentionKernel airk::kAttentionPortableF16 = airk::kKernel<uint16_t>;
const airk::AttentionKernel airk::kAttentionPortableF32 = airk::kKernel<float>;
