// Takes the place of NVIDIA's cuda_bf16.h; see cuda_runtime.h.
#pragma once
#include "emu/bfloat16.h"
