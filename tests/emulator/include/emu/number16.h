// A 16-bit float and its pair, computed in float and rounded once to nearest even. Included by half.h and bfloat16.h, once for each
// EMU_NUMBER, EMU_RAW, EMU_NUMBER2 and the two conversions EMU_ROUND and EMU_WIDEN; therefore without a guard.
struct EMU_RAW {
  unsigned short x;
};
struct alignas(2) EMU_NUMBER {
  uint16_t bits;
  EMU_NUMBER() = default;
  EMU_NUMBER(EMU_RAW raw) : bits(raw.x) {}
  EMU_NUMBER(float value) : bits(EMU_ROUND(value)) {}
  operator float() const { return EMU_WIDEN(bits); }
  operator EMU_RAW() const { return EMU_RAW{bits}; }
};
struct alignas(4) EMU_NUMBER2 {
  EMU_NUMBER x, y;
};

inline EMU_NUMBER __hadd(EMU_NUMBER a, EMU_NUMBER b) { return EMU_NUMBER(static_cast<float>(a) + static_cast<float>(b)); }
inline EMU_NUMBER __hsub(EMU_NUMBER a, EMU_NUMBER b) { return EMU_NUMBER(static_cast<float>(a) - static_cast<float>(b)); }
inline EMU_NUMBER __hmul(EMU_NUMBER a, EMU_NUMBER b) { return EMU_NUMBER(static_cast<float>(a) * static_cast<float>(b)); }
// The product of two 16-bit numbers is exact in double, so that the sum is rounded to 16 bits nearly once.
inline EMU_NUMBER __hfma(EMU_NUMBER a, EMU_NUMBER b, EMU_NUMBER c) {
  return EMU_NUMBER(emu::round_to_odd(static_cast<double>(static_cast<float>(a)) * static_cast<float>(b) + static_cast<float>(c)));
}
inline EMU_NUMBER __hmax(EMU_NUMBER a, EMU_NUMBER b) { return EMU_NUMBER(fmaxf(a, b)); }
inline EMU_NUMBER __hmin(EMU_NUMBER a, EMU_NUMBER b) { return EMU_NUMBER(fminf(a, b)); }
inline EMU_NUMBER2 __hadd2(EMU_NUMBER2 a, EMU_NUMBER2 b) { return EMU_NUMBER2{__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
inline EMU_NUMBER2 __hsub2(EMU_NUMBER2 a, EMU_NUMBER2 b) { return EMU_NUMBER2{__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
inline EMU_NUMBER2 __hmul2(EMU_NUMBER2 a, EMU_NUMBER2 b) { return EMU_NUMBER2{__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
inline EMU_NUMBER2 __hfma2(EMU_NUMBER2 a, EMU_NUMBER2 b, EMU_NUMBER2 c) { return EMU_NUMBER2{__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
inline float __low2float(EMU_NUMBER2 v) { return static_cast<float>(v.x); }
inline float __high2float(EMU_NUMBER2 v) { return static_cast<float>(v.y); }
inline EMU_NUMBER operator+(EMU_NUMBER a, EMU_NUMBER b) { return __hadd(a, b); }
inline EMU_NUMBER operator-(EMU_NUMBER a, EMU_NUMBER b) { return __hsub(a, b); }
inline EMU_NUMBER operator*(EMU_NUMBER a, EMU_NUMBER b) { return __hmul(a, b); }

#undef EMU_NUMBER
#undef EMU_NUMBER2
#undef EMU_RAW
#undef EMU_ROUND
#undef EMU_WIDEN
