// The order of argmax and top_k as one integer, so that equal values and NaN need no special cases.
#pragma once

#include <cstdint>
#include <cstring>

#include "both.h"

namespace airk {

// Larger for the larger value, for equal values larger for the smaller index. NaN is the smallest value, -0 equals 0.
AIRK_BOTH static inline uint64_t order_key(float value, uint32_t index) {
  // -0 + 0 is 0.
  value += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  // Negative floats order backwards: flip all their bits, of the others the sign alone.
  bits = bits >> 31 ? ~bits : bits | 0x80000000u;
  if (value != value) bits = 0;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(~index);
}

AIRK_BOTH static inline uint32_t order_index(uint64_t key) { return ~static_cast<uint32_t>(key); }

}  // namespace airk
