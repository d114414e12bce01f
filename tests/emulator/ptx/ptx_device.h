// What translated PTX is written in: registers are unsigned integers or floats of their width, read and written as values of
// the type that the instruction names.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda_runtime.h"
#include "emu/ptx_twin.h"

namespace ptx {

// A register's bits as a T; the low ones where T is narrower.
template <class T, class R> T as(R value) {
  if constexpr (std::is_same_v<R, bool> || std::is_same_v<T, bool>) {
    return static_cast<T>(value);
  } else if constexpr (sizeof(T) == sizeof(R)) {
    T result;
    memcpy(&result, &value, sizeof result);
    return result;
  } else {
    return static_cast<T>(value);
  }
}
// Writes a T to a register; to a wider one with its sign.
template <class T, class R> void put(R &to, T value) {
  if constexpr (sizeof(T) == sizeof(R)) memcpy(&to, &value, sizeof to);
  else to = static_cast<R>(value);
}

inline emu::Location here(const char *instruction) { return {instruction, 0}; }

// ---- memory

inline char *shared() { return static_cast<char *>(emu::dynamic_shared()); }
inline char *aligned(char *address, unsigned bytes) {
  if (reinterpret_cast<uintptr_t>(address) & (bytes - 1)) emu::fail(716, "misaligned access of %u bytes at %p", bytes, static_cast<void *>(address));
  return address;
}
template <class T> T load(const char *from, int index) {
  T value;
  memcpy(&value, from + static_cast<size_t>(index) * sizeof value, sizeof value);
  return value;
}
template <class T> void store(char *to, int index, T value) { memcpy(to + static_cast<size_t>(index) * sizeof value, &value, sizeof value); }

// ---- arithmetic

template <class T> T wrapping_multiply(T a, T b) {
  using Wide = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b));
}
inline uint64_t multiply_high(uint64_t a, uint64_t b) { return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64); }
inline int64_t multiply_high(int64_t a, int64_t b) { return static_cast<int64_t>((static_cast<__int128>(a) * b) >> 64); }
template <class T> T negate(T a) { return static_cast<T>(0u - static_cast<std::make_unsigned_t<T>>(a)); }
template <class T> T absolute(T a) { return a < 0 ? negate(a) : a; }
template <class T> T shl(T a, uint32_t n) { return n >= sizeof(T) * 8 ? T{0} : static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) << n); }
template <class T> T shr(T a, uint32_t n) {
  if (n >= sizeof(T) * 8) return a < 0 ? static_cast<T>(-1) : T{0};
  return static_cast<T>(a >> n);
}
inline uint32_t funnel_left_wrap(uint32_t a, uint32_t b, uint32_t n) { return __funnelshift_l(a, b, n); }
inline uint32_t funnel_right_wrap(uint32_t a, uint32_t b, uint32_t n) { return __funnelshift_r(a, b, n); }
inline uint32_t shift_of_highest_bit(uint32_t a) { return a == 0 ? 0xffffffffu : static_cast<uint32_t>(__clz(static_cast<int>(a))); }
inline float copy_sign(float sign, float magnitude) { return std::copysign(magnitude, sign); }
inline uint32_t logic3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t result = 0;
  for (uint32_t row = 0; row < 8; row++)
    if ((table >> row) & 1) result |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
  return result;
}
// bfe: beyond the top of the number its sign, or zeros, go on.
template <class T> T extract(T a, uint32_t position, uint32_t length) {
  constexpr uint32_t bits = sizeof(T) * 8;
  position &= 255;
  length &= 255;
  if (length == 0) return 0;
  T result = 0;
  const uint32_t sign_bit = std::min(position + length - 1, bits - 1);
  const bool fill = std::is_signed_v<T> && ((a >> sign_bit) & 1);
  for (uint32_t i = 0; i < bits; i++) {
    const bool bit = i < length && position + i < bits ? (a >> (position + i)) & 1 : fill;
    if (bit) result = static_cast<T>(result | static_cast<T>(T{1} << i));
  }
  return result;
}
template <class T> T insert(T field, T into, uint32_t position, uint32_t length) {
  position &= 255;
  length &= 255;
  for (uint32_t i = 0; i < length && position + i < sizeof(T) * 8; i++) {
    const T bit = static_cast<T>(T{1} << (position + i));
    into = (field >> i) & 1 ? into | bit : into & ~bit;
  }
  return into;
}

// Float to integer: saturates, and NaN is 0.
template <class T, class F> T saturate(F value) {
  if (!(value == value)) return 0;
  if (value <= static_cast<F>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (value >= static_cast<F>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}
template <class T, class From> T clamp(From value) {
  if constexpr (std::is_signed_v<From> && !std::is_signed_v<T>) {
    if (value < 0) return 0;
  }
  if (value > 0 && static_cast<uint64_t>(value) > static_cast<uint64_t>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  if constexpr (std::is_signed_v<From> && std::is_signed_v<T>) {
    if (static_cast<int64_t>(value) < static_cast<int64_t>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  }
  return static_cast<T>(value);
}
template <class F> F saturate_to_one(F value) { return value > 0 ? std::min(value, F{1}) : F{0}; }

// 16-bit floats, alone and in pairs: computed exactly enough in double, rounded once.
inline float half_value(uint16_t bits) { return emu::half_to_float(bits); }
inline float bfloat16_value(uint16_t bits) { return emu::bfloat16_to_float(bits); }
template <class Function, class... Bits> uint16_t on_half(Function function, Bits... bits) {
  return emu::float_to_half(emu::round_to_odd(function(static_cast<double>(emu::half_to_float(bits))...)));
}
template <class Function, class... Bits> uint16_t on_bfloat16(Function function, Bits... bits) {
  return emu::float_to_bfloat16(emu::round_to_odd(function(static_cast<double>(emu::bfloat16_to_float(bits))...)));
}
template <class Function, class... Bits> uint32_t on_half2(Function function, Bits... bits) {
  return on_half(function, static_cast<uint16_t>(bits)...) | static_cast<uint32_t>(on_half(function, static_cast<uint16_t>(bits >> 16)...)) << 16;
}
template <class Function, class... Bits> uint32_t on_bfloat162(Function function, Bits... bits) {
  return on_bfloat16(function, static_cast<uint16_t>(bits)...) | static_cast<uint32_t>(on_bfloat16(function, static_cast<uint16_t>(bits >> 16)...)) << 16;
}

// a * b + c, rounded towards minus infinity. In double the product is exact and the sum's error is known.
inline float fma_down(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, sum = product + c, part = sum - product;
  const double error = (product - (sum - part)) + (c - part);
  const float nearest = static_cast<float>(sum);
  const bool above = static_cast<double>(nearest) > sum || (static_cast<double>(nearest) == sum && error < 0);
  return above ? std::nextafter(nearest, -std::numeric_limits<float>::infinity()) : nearest;
}
// .ftz: numbers below the normal ones count as zero, going in and coming out.
inline float flushed(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

// ---- shfl.sync (PTX ISA, "shfl.sync"): c holds the clamp in bits 0 to 4 and the segment mask in bits 8 to 12.

struct Source {
  int lane;
  bool in_range;
};
inline int segment_start(uint32_t c) { return emu::lane() & static_cast<int>(c >> 8 & 31); }
inline int segment_limit(uint32_t c) { return segment_start(c) | static_cast<int>(c & 31 & ~(c >> 8)); }
inline Source within(int lane, bool in_range) { return {in_range ? lane : emu::lane(), in_range}; }
inline Source source_up(uint32_t b, uint32_t c) {
  const int lane = emu::lane() - static_cast<int>(b & 31);
  return within(lane, lane >= segment_limit(c));
}
inline Source source_down(uint32_t b, uint32_t c) {
  const int lane = emu::lane() + static_cast<int>(b & 31);
  return within(lane, lane <= segment_limit(c));
}
inline Source source_bfly(uint32_t b, uint32_t c) {
  const int lane = emu::lane() ^ static_cast<int>(b & 31);
  return within(lane, lane <= segment_limit(c));
}
inline Source source_idx(uint32_t b, uint32_t c) {
  const int lane = segment_start(c) | static_cast<int>(b & 31 & ~(c >> 8));
  return within(lane, lane <= segment_limit(c));
}

// ---- kernels

struct TranslatedKernel {
  std::string name;  // as nvcc mangles it
  void (*thread)(void **arguments);
  size_t static_shared_bytes;
  unsigned max_block_threads;
  std::vector<size_t> parameter_bytes;
};
// Makes a kernel known to the host half (ptx_host.cpp).
struct Registration {
  Registration(TranslatedKernel kernel);
};

}  // namespace ptx
