// Turns a segmentation fault inside a kernel into a device error that names the address, the kernel, block and thread.
#pragma once

#include <cstddef>

namespace emu {

// Gives the calling worker thread a stack for signal handlers: a fiber's own may be what overflowed.
void prepare_thread_for_faults();
// Installs the handler, or puts it back in front of one that was installed since.
void install_fault_handler();

}  // namespace emu
