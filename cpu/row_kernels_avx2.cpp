#include "simd_avx2.h"

#include "row_kernels_impl.h"

const airk::RowKernels airk::kRowKernelsAvx2 = airk::kKernels;
