// __half, computed in float and rounded once to nearest even, as the device's half instructions are.
#pragma once

#include <cmath>

#include "float16.h"
#include "vector_types.h"

#define EMU_NUMBER __half
#define EMU_NUMBER2 __half2
#define EMU_RAW __half_raw
#define EMU_ROUND emu::float_to_half
#define EMU_WIDEN emu::half_to_float
#include "number16.h"
typedef __half half;
typedef __half2 half2;

inline __half __float2half(float value) { return __half(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline float __half2float(__half value) { return static_cast<float>(value); }
inline __half2 __floats2half2_rn(float x, float y) { return __half2{__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return __half2{__half(v.x), __half(v.y)}; }
inline float2 __half22float2(__half2 v) { return float2{static_cast<float>(v.x), static_cast<float>(v.y)}; }
inline __half2 __half2half2(__half v) { return __half2{v, v}; }
inline __half2 __halves2half2(__half x, __half y) { return __half2{x, y}; }
inline unsigned short __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half(__half_raw{bits}); }
