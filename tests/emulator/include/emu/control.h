// The emulator's own functions in libcudart_emu.so, for tests: plain C, so that they can be called from Deno.
#pragma once

#include <stdint.h>

extern "C" {

// Changes settings ("vram=8MiB,streams=lazy"; all of them are in runtime/settings.h). Counting for fail_malloc, fail_launch
// and the like starts anew. Returns 0, or 1 where something was not understood: nothing has changed then, and emu_report says what.
int32_t emu_configure(const char *settings);

// Forgets errors, reports, counts and kernel symbols, and frees all memory, streams and events. Settings return to
// what CUDA_EMU says.
void emu_reset(void);

// What exists now and has happened since emu_reset.
typedef struct {
  uint64_t device_allocations, device_bytes, device_peak_bytes;
  uint64_t host_allocations, host_bytes;  // page-locked
  uint64_t streams, events, pending_operations;
  uint64_t unpinned_copies;               // cudaMemcpy calls with pageable host memory
  uint64_t report_lines;
} emu_counts_t;
void emu_counts(emu_counts_t *counts);

// Copies what was found wrong, one line each, NUL-terminated and cut to capacity; returns the length of the whole text.
uint64_t emu_report(char *text, uint64_t capacity);
}
