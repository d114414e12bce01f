#include "emu/control.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "api.h"
#include "memory.h"
#include "report.h"
#include "settings.h"
#include "streams.h"
#include "symbols.h"

#define EMU_EXPORT __attribute__((visibility("default")))

using namespace emu;

extern "C" {

EMU_EXPORT int32_t emu_configure(const char *text) {
  std::lock_guard<std::recursive_mutex> lock(api_mutex());
  initialize();
  const std::string error = configure(text);
  counters.mallocs = counters.host_allocs = counters.launches = counters.syncs = 0;
  if (!error.empty()) report("%s", error.c_str());
  return error.empty() ? 0 : 1;
}

EMU_EXPORT void emu_reset(void) {
  std::lock_guard<std::recursive_mutex> lock(api_mutex());
  initialize();
  release_streams();
  release_memory();
  for (int i = 0; i < device_count(); i++) device(i).peak_bytes = 0;
  forget_errors();
  clear_reports();
  forget_kernel_symbols();
  counters = Counters();
  settings = Settings();
  configure(getenv("CUDA_EMU"));
}

EMU_EXPORT void emu_counts(emu_counts_t *counts) {
  std::lock_guard<std::recursive_mutex> lock(api_mutex());
  initialize();
  const MemoryCounts memory = count_memory();
  const StreamCounts streams = count_streams();
  uint64_t peak = 0;
  for (int i = 0; i < device_count(); i++) peak = std::max(peak, device(i).peak_bytes);
  const std::string text = reported();
  *counts = {memory.allocations, memory.allocated_bytes, peak, memory.pinned, memory.pinned_bytes, streams.streams, streams.events,
             streams.pending_operations, counters.unpinned_copies, static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'))};
}

EMU_EXPORT uint64_t emu_report(char *text, uint64_t capacity) {
  const std::string all = reported();
  if (capacity) {
    const size_t copied = std::min<size_t>(all.size(), capacity - 1);
    memcpy(text, all.data(), copied);
    text[copied] = 0;
  }
  return all.size();
}

}  // extern "C"
