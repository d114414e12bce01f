#include "simd_portable.h"

#include "attention_kernel_impl.h"

const airk::AttentionKernels airk::kAttentionPortable = airk::kKernels;
