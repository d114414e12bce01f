// The activations of airk_gated, and the soft cap.
#pragma once

#include "../cpu/runtime.h"
#include "launch.h"

namespace airk {

// softcap * tanh(x / softcap).
__device__ __forceinline__ float soft_capped(float x, float softcap) { return softcap * tanhf(x / softcap); }

// x * sigmoid(by_x).
__device__ __forceinline__ float times_sigmoid(float x, float by_x) { return x / (1.0f + expf(-by_x)); }

// NaN stays NaN.
__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

// The same for every thread of a launch, so that the choice costs nothing beside the memory's pace.
__device__ __forceinline__ float activate(int activation, float x) {
  switch (activation) {
    case AIRK_SILU:
      return times_sigmoid(x, x);
    case AIRK_GELU:
      // By the complement, so that the far negative side keeps its digits.
      return 0.5f * x * erfcf(x * -0.70710678118654752f);
    case AIRK_GELU_TANH:
      return times_sigmoid(x, 2.0f * 0.79788456080286536f * fmaf(0.044715f * (x * x), x, x));
    case AIRK_RELU:
      return relu(x);
    case AIRK_RELU2:
      return relu(x) * relu(x);
    case AIRK_SIGMOID:
      return times_sigmoid(1.0f, x);
    default:
      return tanhf(x);
  }
}

// The gated activation of gpt-oss. Comparisons, since fminf would hide NaN.
__device__ __forceinline__ float swiglu_oai(float gate, float up) {
  const float g = gate > 7.0f ? 7.0f : gate, u = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
  return times_sigmoid(g, 1.702f * g) * (u + 1.0f);
}

}  // namespace airk
