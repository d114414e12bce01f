// Places the sections of an extent one behind the other.
#pragma once

#include <cstdint>

#include "runtime.h"

namespace airk {

// Appends sections, each on a multiple of 64 bytes, and remembers whether a size overflowed.
class Sections {
 public:
  uint64_t add(uint64_t count, uint64_t element_bytes) {
    uint64_t bytes, start;
    overflow_ |= multiply_overflows(count, element_bytes, &bytes);
    overflow_ |= __builtin_add_overflow(end_, uint64_t{63}, &start);
    start &= ~uint64_t{63};
    overflow_ |= __builtin_add_overflow(start, bytes, &end_);
    return start;
  }
  uint64_t product(uint64_t a, uint64_t b) {
    uint64_t result;
    overflow_ |= multiply_overflows(a, b, &result);
    return result;
  }
  bool overflow() const { return overflow_; }
  uint64_t end() const { return end_; }

 private:
  uint64_t end_ = 0;
  bool overflow_ = false;
};

inline uint64_t ceil_divide(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

}  // namespace airk
