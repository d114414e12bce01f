// What the symbol table of a kernel library says about a kernel compiled by g++: its name and its static shared memory.
#pragma once

#include <cstddef>
#include <string>

namespace emu {

struct KernelSymbol {
  std::string name;                // demangled, or "kernel" where the library has no symbol table
  size_t static_shared_bytes = 0;  // its __shared__ variables; not those of device functions that were not inlined by name
  size_t tls_module = 0;           // the library's thread-local block, which holds all its __shared__ variables; 0 for none
  size_t tls_bytes = 0;
};

// Looked up once a kernel.
KernelSymbol kernel_symbol(const void *kernel);
// For when another library may be loaded at the same addresses.
void forget_kernel_symbols();

}  // namespace emu
