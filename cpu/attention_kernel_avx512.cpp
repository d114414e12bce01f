#include "simd_avx512.h"

#include "attention_kernel_impl.h"

const airk::AttentionKernels airk::kAttentionAvx512 = airk::kKernels;
