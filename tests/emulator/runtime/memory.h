// Device memory, page-locked host memory, and what is known about an address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

// Whether [address, address + bytes) lies inside one live allocation of that device; -1 for any device.
bool is_device_range(const void *address, size_t bytes, int device = -1);
bool is_pinned_range(const void *address, size_t bytes);
// Whether the address belongs to the emulated devices at all, allocated or not.
bool is_device_address(const void *address);
// For reports: "12 bytes past the end of allocation 3 (4096 bytes)", "freed allocation 3 (4096 bytes)", "host memory 0x...".
// Takes no lock: a fault may be reported while the runtime is locked.
std::string describe_address(const void *address);
// Reports allocations whose margins were written to; `device` gets a sticky error.
void check_margins();
// Frees all device and page-locked memory without a word.
void release_memory();

struct MemoryCounts {
  uint64_t allocations, allocated_bytes, pinned, pinned_bytes;
};
MemoryCounts count_memory();

}  // namespace emu
