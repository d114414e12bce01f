// The quantizers without parameters: conversion to f32, f16, bf16, and the formats q8 and nf4.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats.h"
#include "quantize.h"

namespace airk {
namespace {

struct Sums {
  double weights, errors;
};

// Keeps the first position that is not finite, whichever thread finds it first.
class FirstBad {
 public:
  void add(uint64_t position) {
    for (uint64_t known = position_; position < known && !position_.compare_exchange_weak(known, position);) {
    }
  }
  bool any() const { return position_ != ~uint64_t{0}; }
  uint64_t position() const { return position_; }

 private:
  std::atomic<uint64_t> position_{~uint64_t{0}};
};

void add_errors(const float *weights, const float *decoded, uint64_t count, Sums *sums) {
  for (uint64_t i = 0; i < count; i++) {
    const double w = weights[i], difference = w - static_cast<double>(decoded[i]);
    sums->weights += w * w;
    sums->errors += difference * difference;
  }
}

// Converts one row; returns the first column whose result is not finite, or cols.
uint64_t convert_row(Format format, const float *weights, uint64_t cols, uint8_t *out, float *decoded) {
  if (format == Format::f32) {
    std::memcpy(out, weights, cols * 4);
    std::memcpy(decoded, weights, cols * 4);
    return cols;
  }
  for (uint64_t c = 0; c < cols; c++) {
    const uint16_t bits = format == Format::f16 ? to_f16(weights[c]) : to_bf16(weights[c]);
    std::memcpy(out + c * 2, &bits, 2);
    decoded[c] = format == Format::f16 ? from_f16(bits) : from_bf16(bits);
  }
  for (uint64_t c = 0; c < cols; c++)
    if (!std::isfinite(decoded[c])) return c;
  return cols;
}

void q8_row(const float *weights, uint64_t cols, uint8_t *scale_out, uint8_t *code_out, float *decoded) {
  for (uint64_t first = 0; first < cols; first += block_cols) {
    const uint64_t count = std::min(block_cols, cols - first);
    float largest = 0.0f;
    for (uint64_t i = 0; i < count; i++) largest = std::max(largest, std::fabs(weights[first + i]));
    // Rounded up, so that the largest code is 127 at most. Adding before the shift carries into the exponent as it should.
    const uint16_t scale_bits = static_cast<uint16_t>((bits_of(largest / 127.0f) + 0xffffu) >> 16);
    const float scale = from_bf16(scale_bits);
    std::memcpy(scale_out + first / block_cols * 2, &scale_bits, 2);
    for (uint64_t i = 0; i < count; i++) {
      const float code = scale > 0.0f ? std::clamp(std::nearbyint(weights[first + i] / scale), -127.0f, 127.0f) : 0.0f;
      code_out[first + i] = static_cast<uint8_t>(static_cast<int8_t>(code));
      decoded[first + i] = code * scale;
    }
  }
}

// Where bitsandbytes (dQuantizeNF4 in its csrc/kernels.cu) passes to the next code: strictly above these.
constexpr float nf4_thresholds[15] = {-0.8480964004993439f,   -0.6106329262256622f, -0.4599952697753906f,  -0.33967943489551544f, -0.23460740596055984f,
                                      -0.13791173323988914f,  -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
                                      0.2920137718319893f,    0.3893125355243683f,  0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};

void nf4_block_of(const float *weights, uint64_t count, float *absmax, uint8_t *code_out, float *decoded) {
  float largest = 0.0f;
  for (uint64_t i = 0; i < count; i++) largest = std::max(largest, std::fabs(weights[i]));
  *absmax = largest;
  const float inverse = 1.0f / largest;
  uint8_t codes[nf4_block] = {};
  for (uint64_t i = 0; i < count; i++) {
    const float x = std::clamp(weights[i] * inverse, -1.0f, 1.0f);
    int code = 0;
    for (float threshold : nf4_thresholds) code += x > threshold;
    codes[i] = static_cast<uint8_t>(largest > 0.0f ? code : 7);
    decoded[i] = nf4_values[codes[i]] * largest;
  }
  for (uint64_t i = 0; i < count; i += 2) code_out[i / 2] = static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]);
}

}  // namespace

airk_status quantize_simple(Format format, QuantizeArguments *a) {
  const Source &source = a->source;
  Layout layout;
  if (!layout_of(format, source.rows, source.cols, 0, &layout) || layout.bytes > a->extent_capacity) {
    return fail(a->context, AIRK_INVALID, "Cannot quantize: the extent may have %llu bytes, required %llu",
                static_cast<unsigned long long>(a->extent_capacity), static_cast<unsigned long long>(layout.bytes));
  }
  // nf4's blocks ignore rows, so there a "row" is a run of blocks of the flat tensor.
  const bool flat = format == Format::nf4;
  constexpr uint64_t flat_run = 16 * nf4_block;
  const uint64_t elements = source.rows * source.cols, width = flat ? flat_run : source.cols;
  const uint64_t runs = flat ? (elements + flat_run - 1) / flat_run : source.rows, blocks = (source.cols + block_cols - 1) / block_cols;
  if (format == Format::q8) std::memset(a->extent, 0, layout.bytes);
  if (flat) std::memset(a->extent + layout.scale, 0, layout.bytes - layout.scale);
  struct Buffers {
    std::vector<float> weights, decoded;
  };
  std::vector<Buffers> buffers(static_cast<size_t>(thread_count(a->context)), {std::vector<float>(width), std::vector<float>(width)});
  std::vector<Sums> sums(runs, Sums{});
  FirstBad bad;
  const int64_t grain = static_cast<int64_t>(std::max<uint64_t>(1, 65536 / width));
  parallel_for(a->context, static_cast<int64_t>(runs), grain, [&](int64_t begin, int64_t end, int thread) {
    float *weights = buffers[static_cast<size_t>(thread)].weights.data(), *decoded = buffers[static_cast<size_t>(thread)].decoded.data();
    for (uint64_t run = static_cast<uint64_t>(begin); run < static_cast<uint64_t>(end) && !cancelled(a->context); run++) {
      const uint64_t first = run * width, count = std::min(width, elements - first);
      // A run of the flat tensor is read as the only row of a tensor that starts there.
      const uint64_t element_bytes = source.type == AIRK_F32 ? 4 : 2;
      const uint64_t col = load_row(Source{source.data + first * element_bytes, source.type, 1, count}, 0, weights);
      if (col != count) {
        bad.add(first + col);
        continue;
      }
      if (flat) {
        for (uint64_t i = 0; i < count; i += nf4_block) {
          const uint64_t element = first + i;
          float absmax;
          nf4_block_of(weights + i, std::min(nf4_block, count - i), &absmax, a->extent + layout.code + element / 2, decoded + i);
          std::memcpy(a->extent + layout.scale + element / nf4_block * 4, &absmax, 4);
        }
      } else if (format == Format::q8) {
        q8_row(weights, source.cols, a->extent + layout.scale + run * blocks * 2, a->extent + layout.code + run * blocks * block_cols, decoded);
      } else {
        const uint64_t out_bytes = format == Format::f32 ? 4 : 2;
        const uint64_t overflow = convert_row(format, weights, source.cols, a->extent + first * out_bytes, decoded);
        if (overflow != source.cols) {
          bad.add(first + overflow);
          continue;
        }
      }
      add_errors(weights, decoded, count, &sums[run]);
    }
  });
  if (cancelled(a->context)) return fail(a->context, AIRK_CANCELLED, "Cannot quantize: cancelled");
  if (bad.any()) return fail_not_finite(a->context, "quantize", bad.position() / source.cols, bad.position() % source.cols);
  a->extent_bytes = layout.bytes;
  a->outliers = 0;
  a->squared_weights = a->squared_errors = 0.0;
  for (const Sums &sum : sums) {
    a->squared_weights += sum.weights;
    a->squared_errors += sum.errors;
  }
  return AIRK_OK;
}

}  // namespace airk
