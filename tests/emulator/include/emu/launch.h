// Launching: a configuration that is called with a kernel and its arguments, as airk::launch of cuda/launch.h.
#pragma once

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "device.h"
#include "runtime_api.h"

namespace emu {

struct KernelLaunch {
  const void *kernel;            // identifies it: attributes are kept and its name is found by this address
  const char *name;              // or nullptr: found in the library's symbol table
  dim3 grid, block;
  size_t static_shared_bytes;    // of this kernel, where the caller knows (PTX); else 0 and found by symbol
  size_t dynamic_shared_bytes;
  bool shared_in_one_buffer;     // static shared memory lies before the dynamic one in dynamic_shared() (PTX)
  unsigned max_block_threads;    // from __launch_bounds__ where known (PTX), else 1024
  cudaStream_t stream;
  std::function<void()> thread;  // what each thread runs
  std::vector<const void *> pointers;  // the pointer arguments, checked against device and pinned memory when it runs
  Location at;
};

// Checks the launch against the device's limits and enqueues it.
EMU_API cudaError_t enqueue_kernel(KernelLaunch launch);

class Launch {
 public:
  Launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, cudaStream_t stream, Location at)
      : grid_(grid), block_(block), dynamic_shared_bytes_(dynamic_shared_bytes), stream_(stream), at_(at) {}

  template <class... Parameters, class... Arguments> cudaError_t operator()(void (*kernel)(Parameters...), Arguments &&...arguments) const {
    // By value, as the device gets them: what an argument points to may be gone when a lazy stream runs the kernel.
    std::tuple<std::decay_t<Parameters>...> values(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    std::vector<const void *> pointers;
    std::apply([&pointers](const auto &...value) { (note_pointer(pointers, value), ...); }, values);
    KernelLaunch launch{reinterpret_cast<const void *>(kernel), nullptr, grid_, block_, 0, dynamic_shared_bytes_, false, 1024, stream_, {}, std::move(pointers), at_};
    launch.thread = [kernel, values] { std::apply(kernel, values); };
    return enqueue_kernel(std::move(launch));
  }

 private:
  template <class T> static void note_pointer(std::vector<const void *> &pointers, const T &value) {
    if constexpr (std::is_pointer_v<T>) pointers.push_back(static_cast<const void *>(value));
  }

  dim3 grid_, block_;
  size_t dynamic_shared_bytes_;
  cudaStream_t stream_;
  Location at_;
};

}  // namespace emu
