// How much memory this process may use.
#pragma once

#include <cstdint>

namespace airk {

struct MemoryInfo {
  uint64_t free_bytes, total_bytes;
};

// MemAvailable and MemTotal of the machine, or what the control group leaves where that is less. Throws std::bad_alloc.
MemoryInfo read_memory_info();

}  // namespace airk
