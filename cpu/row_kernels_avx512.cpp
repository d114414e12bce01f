#include "simd_avx512.h"

#include "row_kernels_impl.h"

const airk::RowKernels airk::kRowKernelsAvx512 = airk::kKernels;
