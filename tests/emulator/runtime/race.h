// The race checker of the build build/race: kernels are compiled with -fsanitize=thread, and race.cpp takes the place of
// its runtime library.
#pragma once

#include <cstddef>

namespace emu {

// Checks one access of the running CUDA thread. `code` is where it was made, or nullptr.
void check_access(const void *address, size_t bytes, bool write, bool atomic, const void *code);

}  // namespace emu
