// Kernels over one run of elements, one table an instruction set.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace airk {

constexpr int64_t kDeltaColumns = 64;

struct RowKernels {
  // y, x, weight: [cols]; weight may be nullptr. y may be x.
  void (*rmsnorm)(float *y, const float *x, const float *weight, int64_t cols, float eps);
  // The same; bias may be nullptr too.
  void (*layernorm)(float *y, const float *x, const float *weight, const float *bias, int64_t cols, float eps);
  // x: [2 * half] in place; cos, sin: [half]. Pairs i, i + half.
  void (*rotate)(float *x, const float *cos, const float *sin, int64_t half);
  // The same of pairs 2 i, 2 i + 1.
  void (*rotate_pairs)(float *x, const float *cos, const float *sin, int64_t half);
  // y = activation(gate) * up; up may be nullptr. y may be gate or up.
  void (*gated)(float *y, const float *gate, const float *up, int64_t count, int32_t activation);
  // y += factor * x.
  void (*add)(float *y, const float *x, int64_t count, float factor);
  // y = factor * x, then softcap * tanh(y / softcap) unless softcap is 0. y may be x.
  void (*scale)(float *y, const float *x, int64_t count, float factor, float softcap);
  // y = x, or the nearest of -limit and limit where it lies beyond. y may be x.
  void (*clamp)(float *y, const float *x, int64_t count, float limit);
  // y = positive x^2 + beta x where x > 0, else negative (exp(min(x, eps)) - 1 - x) + beta x. y may be x.
  void (*xielu)(float *y, const float *x, int64_t count, float positive, float negative, float beta, float eps);
  // y = x as float16, to nearest even.
  void (*to_half)(uint16_t *y, const float *x, int64_t count);
  // y = x / sqrt(sum(x^2) + eps). y may be x.
  void (*l2norm)(float *y, const float *x, int64_t cols, float eps);
  // y = -exp(a_log) * log(1 + exp(x + bias)). y may be x.
  void (*log_decay)(float *y, const float *x, const float *a_log, const float *bias, int64_t count);
  // One token of the gated delta rule for `columns` <= kDeltaColumns of a state [key_dim][state_stride]; v, y: [columns].
  void (*delta_step)(float *state, int64_t state_stride, const float *q, const float *k, const float *v, float *y, int64_t key_dim,
                     int64_t columns, float decay, float beta, float scale, const float *skip, bool corrects);
  // Codes [ceil(count / 32) * 32] and float16 scales [ceil(count / 32)] of a q8 cache row: airk_kv_append in cuda/airkern.h.
  void (*to_q8)(int8_t *codes, uint16_t *scales, const float *x, int64_t count);
};

extern const RowKernels kRowKernelsPortable, kRowKernelsAvx2, kRowKernelsAvx512;

inline const RowKernels &row_kernels(const airk_context *context) {
#if defined(__x86_64__)
  const Isa isa = isa_of(context);
  if (isa >= Isa::avx512) return kRowKernelsAvx512;
  if (isa >= Isa::avx2) return kRowKernelsAvx2;
#else
  (void)context;
#endif
  return kRowKernelsPortable;
}

// Elements that one thread can pass in about the time that waking another costs.
constexpr int64_t kRunElements = 16384;

// Runs of items, each of `elements`, that are worth a thread.
inline int64_t grain_of(int64_t elements) { return elements < kRunElements ? kRunElements / (elements < 1 ? 1 : elements) : 1; }

}  // namespace airk
