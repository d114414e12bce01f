#include "simd_avx2.h"

#include "attention_kernel_impl.h"

const airk::AttentionKernels airk::kAttentionAvx2 = airk::kKernels;
