// Checks of an operation's arguments. The first failure is kept; its text says action, subject, current, required.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <initializer_list>

#include "runtime.h"

namespace airk {

class Check {
 public:
  Check(airk_stream *stream, const char *op) : context_(context_of(stream)), op_(op) {}

  // A tensor must not be null and lie at a multiple of its element's bytes.
  Check &tensor(const char *name, airk_ptr address, uint64_t element_bytes = 4) {
    if (address == 0) return refuse("Cannot run %s: `%s` is null, required is a tensor", op_, name);
    if (address % element_bytes != 0) {
      return refuse("Cannot run %s: `%s` is at 0x%llx, required is a multiple of %llu", op_, name, print(address), print(element_bytes));
    }
    return *this;
  }

  // A tensor that may be absent, which 0 says.
  Check &optional(const char *name, airk_ptr address, uint64_t element_bytes = 4) {
    return address == 0 ? *this : tensor(name, address, element_bytes);
  }

  Check &at_least(const char *name, uint64_t value, uint64_t least) {
    return value >= least ? *this
                          : refuse("Cannot run %s: %s is %llu, required is at least %llu", op_, name, print(value), print(least));
  }

  Check &at_most(const char *name, uint64_t value, uint64_t most) {
    return value <= most ? *this : refuse("Cannot run %s: %s is %llu, required is at most %llu", op_, name, print(value), print(most));
  }

  // The bytes of a tensor must be countable with room to spare.
  Check &shape(const char *name, std::initializer_list<uint64_t> sizes) {
    uint64_t bytes = sizeof(double);
    for (uint64_t size : sizes) {
      if (multiply_overflows(bytes, size, &bytes) || bytes > kMostBytes) {
        return refuse("Cannot run %s: the shape of `%s` overflows, required are fewer than 2^59 elements", op_, name);
      }
    }
    return *this;
  }

  // For all else: the text after "Cannot run <op>: ".
  Check &require(bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));

  // True once something failed: then return status().
  bool failed() const { return status_ != AIRK_OK; }
  airk_status status() const { return status_; }

 private:
  static constexpr uint64_t kMostBytes = 1ull << 62;
  static unsigned long long print(uint64_t value) { return value; }

  template <class... Values>
  Check &refuse(const char *format, Values... values) {
    // Every format is a literal of this class.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-security"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (!failed()) status_ = fail(context_, AIRK_INVALID, format, values...);
#pragma GCC diagnostic pop
    return *this;
  }

  airk_context *context_;
  const char *op_;
  airk_status status_ = AIRK_OK;
};

inline Check &Check::require(bool ok, const char *format, ...) {
  if (ok || failed()) return *this;
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  __builtin_vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return refuse("Cannot run %s: %s", op_, static_cast<const char *>(text));
}

}  // namespace airk
