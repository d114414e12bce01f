// CUDA's built-in vector types, with CUDA's alignments: a misaligned float4 load traps under UBSan here as on a GPU.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

#define EMU_VECTOR2(Name, Element, Alignment)                                                                              \
  struct alignas(Alignment) Name {                                                                                         \
    Element x, y;                                                                                                          \
  };                                                                                                                       \
  constexpr Name make_##Name(Element x, Element y) { return Name{x, y}; }
#define EMU_VECTOR4(Name, Element, Alignment)                                                                              \
  struct alignas(Alignment) Name {                                                                                         \
    Element x, y, z, w;                                                                                                    \
  };                                                                                                                       \
  constexpr Name make_##Name(Element x, Element y, Element z, Element w) { return Name{x, y, z, w}; }

EMU_VECTOR2(char2, signed char, 2)
EMU_VECTOR2(uchar2, unsigned char, 2)
EMU_VECTOR2(short2, short, 4)
EMU_VECTOR2(ushort2, unsigned short, 4)
EMU_VECTOR2(int2, int, 8)
EMU_VECTOR2(uint2, unsigned, 8)
EMU_VECTOR2(float2, float, 8)
EMU_VECTOR2(double2, double, 16)
EMU_VECTOR2(longlong2, long long, 16)
EMU_VECTOR2(ulonglong2, unsigned long long, 16)
EMU_VECTOR4(char4, signed char, 4)
EMU_VECTOR4(uchar4, unsigned char, 4)
EMU_VECTOR4(short4, short, 8)
EMU_VECTOR4(ushort4, unsigned short, 8)
EMU_VECTOR4(int4, int, 16)
EMU_VECTOR4(uint4, unsigned, 16)
EMU_VECTOR4(float4, float, 16)

#undef EMU_VECTOR2
#undef EMU_VECTOR4

struct float3 {
  float x, y, z;
};
constexpr float3 make_float3(float x, float y, float z) { return float3{x, y, z}; }
constexpr uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }
