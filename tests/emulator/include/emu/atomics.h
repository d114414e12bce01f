// CUDA's atomic functions, for global and shared addresses alike. Relaxed, as on the device.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace emu {

// Replaces *address by next(*address) in one step; returns the old value.
template <class T, class Next> T atomic_update(T *address, Next next) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  static_assert(sizeof(T) == sizeof(Bits), "atomics work on 4 or 8 bytes");
  Bits *const bits = reinterpret_cast<Bits *>(address);
  Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    T old;
    memcpy(&old, &seen, sizeof old);
    const T wanted = next(old);
    Bits replacement;
    memcpy(&replacement, &wanted, sizeof wanted);
    if (__atomic_compare_exchange_n(bits, &seen, replacement, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
  }
}

}  // namespace emu

#define EMU_ATOMIC(name, type, result)                                                                                     \
  inline type name(type *address, type value) {                                                                            \
    return emu::atomic_update(address, [value](type old) -> type { return result; });                                      \
  }
#define EMU_ATOMIC_INTEGERS(name, result)                                                                                  \
  EMU_ATOMIC(name, int, result)                                                                                            \
  EMU_ATOMIC(name, unsigned, result)                                                                                       \
  EMU_ATOMIC(name, unsigned long long, result)

// Through unsigned, where overflow wraps.
inline int atomicAdd(int *address, int value) {
  return emu::atomic_update(address, [value](int old) { return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)); });
}
EMU_ATOMIC(atomicAdd, unsigned, old + value)
EMU_ATOMIC(atomicAdd, unsigned long long, old + value)
EMU_ATOMIC(atomicAdd, float, old + value)
EMU_ATOMIC(atomicAdd, double, old + value)
EMU_ATOMIC_INTEGERS(atomicMax, old > value ? old : value)
EMU_ATOMIC_INTEGERS(atomicMin, old < value ? old : value)
EMU_ATOMIC_INTEGERS(atomicAnd, old &value)
EMU_ATOMIC_INTEGERS(atomicOr, old | value)
EMU_ATOMIC_INTEGERS(atomicXor, old ^ value)
EMU_ATOMIC_INTEGERS(atomicExch, (static_cast<void>(old), value))
EMU_ATOMIC(atomicExch, float, (static_cast<void>(old), value))
EMU_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1)

#undef EMU_ATOMIC
#undef EMU_ATOMIC_INTEGERS

template <class T> T atomicCAS(T *address, T expected, T value) {
  return emu::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}
