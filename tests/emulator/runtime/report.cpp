#include "report.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "settings.h"

namespace emu {

namespace {
constexpr int kMaxLines = 100;  // a broken kernel breaks in every thread
std::mutex mutex;
std::string text;
int lines = 0;
}  // namespace

void report(const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  std::lock_guard<std::mutex> lock(mutex);
  if (lines++ >= kMaxLines) return;
  text += line;
  text += '\n';
  if (!settings.quiet) fprintf(stderr, "[cuda emulator] %s\n", line);
}

std::string reported() {
  std::lock_guard<std::mutex> lock(mutex);
  return text;
}

void clear_reports() {
  std::lock_guard<std::mutex> lock(mutex);
  text.clear();
  lines = 0;
}

}  // namespace emu
