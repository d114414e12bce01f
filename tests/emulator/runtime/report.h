// What the emulator found wrong, one line each: printed to standard error and kept for emu_report.
#pragma once

#include <string>

namespace emu {

void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string reported();
void clear_reports();

}  // namespace emu
