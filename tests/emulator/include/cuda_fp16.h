// Takes the place of NVIDIA's cuda_fp16.h; see cuda_runtime.h.
#pragma once
#include "emu/half.h"
