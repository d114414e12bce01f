// AddressSanitizer does not see masked loads and stores. Call this beside each, so that a build under it does.
#pragma once

namespace airk {

template <class T>
static inline void masked_access([[maybe_unused]] const T *p, [[maybe_unused]] int elements) {
#if defined(__SANITIZE_ADDRESS__)
  for (int i = 0; i < elements; i++) static_cast<void>(*const_cast<const volatile T *>(p + i));
#endif
}

}  // namespace airk
