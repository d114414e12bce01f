#include "simd_portable.h"

#include "row_kernels_impl.h"

const airk::RowKernels airk::kRowKernelsPortable = airk::kKernels;
