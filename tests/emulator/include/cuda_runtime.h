// Takes the place of NVIDIA's cuda_runtime.h so that g++ compiles .cu files to run on the CPU: put tests/emulator/include
// first on the include path. Declares only what AirKern's kernels use; what is missing here is a compile error, not a
// silent difference.
#pragma once

#if defined(__CUDACC__)
#error "tests/emulator/include is for g++; nvcc has its own cuda_runtime.h"
#endif
#define AIRK_EMULATED 1

#include "emu/vector_types.h"

#include "emu/runtime_api.h"

#include "emu/device.h"

#include "emu/atomics.h"
#include "emu/intrinsics.h"
#include "emu/launch.h"
