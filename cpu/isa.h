// Which instruction sets this processor has.
#pragma once

#include <string>

#include "runtime.h"

namespace airk {

// Asks the processor, and for AMX also the kernel's permission. Requesting that twice is harmless.
Isa detect_isa();

const char *isa_name(Isa isa);

// False where there is no such set.
bool parse_isa(const std::string &name, Isa *isa);

// The processor's own name, "CPU" where it has none.
std::string processor_name();

}  // namespace airk
