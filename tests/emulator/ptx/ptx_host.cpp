// The functions that nvcc's host code calls to register and launch kernels: they run the translated ones.
#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>

#include "ptx_device.h"

namespace ptx {

namespace {

std::map<std::string, TranslatedKernel> &kernels_by_name() {
  static std::map<std::string, TranslatedKernel> kernels;
  return kernels;
}
std::map<const void *, const TranslatedKernel *> &kernels_by_stub() {
  static std::map<const void *, const TranslatedKernel *> kernels;
  return kernels;
}

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};
thread_local Configuration pushed;

cudaError_t launch(const void *stub, const Configuration &c, void **arguments) {
  const auto found = kernels_by_stub().find(stub);
  if (found == kernels_by_stub().end()) return cudaErrorInvalidDeviceFunction;
  const TranslatedKernel &kernel = *found->second;
  using Bytes = std::vector<char>;
  auto values = std::make_shared<std::vector<Bytes>>();
  for (size_t i = 0; i < kernel.parameter_bytes.size(); i++) {
    const char *from = static_cast<const char *>(arguments[i]);
    values->emplace_back(from, from + kernel.parameter_bytes[i]);
  }
  emu::KernelLaunch l{stub, kernel.name.c_str(), c.grid, c.block, kernel.static_shared_bytes, c.shared_bytes, true, kernel.max_block_threads, c.stream, {}, {}, {"nvcc's host code", 0}};
  l.thread = [&kernel, values] {
    void *pointers[64];
    for (size_t i = 0; i < values->size(); i++) pointers[i] = (*values)[i].data();
    kernel.thread(pointers);
  };
  return emu::enqueue_kernel(std::move(l));
}

}  // namespace

Registration::Registration(TranslatedKernel kernel) {
  if (kernel.parameter_bytes.size() > 64) abort();
  const std::string mangled = kernel.name;
  if (char *text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, nullptr)) {
    kernel.name = text;
    free(text);
  }
  kernels_by_name()[mangled] = std::move(kernel);
}

}  // namespace ptx

using namespace ptx;

// The layout of cudaLaunchConfig_t.
struct LaunchConfig {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
  void *attributes;
  unsigned attribute_count;
};

extern "C" {
void **__cudaRegisterFatBinary(void *) {
  static void *handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
char __cudaInitModule(void **) { return 1; }
void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}
void __cudaRegisterFunction(void **, const char *stub, char *, const char *name, int, uint3 *, uint3 *, dim3 *, dim3 *, int *) {
  const auto found = kernels_by_name().find(name);
  if (found == kernels_by_name().end()) {
    fprintf(stderr, "[cuda emulator] no translated PTX for kernel %s\n", name);
    abort();
  }
  kernels_by_stub()[stub] = &found->second;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void *stream) {
  pushed = {grid, block, shared_bytes, static_cast<cudaStream_t>(stream)};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared_bytes = pushed.shared_bytes;
  *static_cast<cudaStream_t *>(stream) = pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(void **kernel, const void *stub) {
  *kernel = const_cast<void *>(stub);
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes, cudaStream_t stream) {
  return launch(kernel, {grid, block, shared_bytes, stream}, arguments);
}
cudaError_t cudaLaunchKernel(const void *stub, dim3 grid, dim3 block, void **arguments, size_t shared_bytes, cudaStream_t stream) {
  return launch(stub, {grid, block, shared_bytes, stream}, arguments);
}
cudaError_t cudaLaunchKernelExC(const LaunchConfig *config, const void *stub, void **arguments) {
  if (config->attribute_count != 0) return cudaErrorInvalidValue;
  return launch(stub, {config->grid, config->block, config->shared_bytes, config->stream}, arguments);
}
}
