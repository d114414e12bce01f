// cudaMemcpy and cudaMemset: every range is checked against what is allocated when the copy is enqueued and again when it runs.
#include <cstring>
#include <memory>
#include <vector>

#include "api.h"
#include "memory.h"
#include "report.h"
#include "streams.h"

#define EMU_EXPORT __attribute__((visibility("default")))

namespace emu {

namespace {

bool check_side(const char *call, const char *side, const void *address, size_t bytes, bool on_device) {
  if (on_device ? is_device_range(address, bytes) : !is_device_address(address)) return true;
  report("%s: %s should be %zu bytes of %s memory, but is %s", call, side, bytes, on_device ? "device" : "host", describe_address(address).c_str());
  return false;
}

cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  const bool known = kind != cudaMemcpyDefault;
  const bool to_device = known ? kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice : is_device_address(to);
  const bool from_device = known ? kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice : is_device_address(from);
  const auto check = [=] {
    const bool to_fits = check_side("cudaMemcpy", "the target", to, bytes, to_device);
    return check_side("cudaMemcpy", "the source", from, bytes, from_device) && to_fits;
  };
  if (!check()) return cudaErrorInvalidValue;

  const bool from_pageable = !from_device && !is_pinned_range(from, bytes), to_pageable = !to_device && !is_pinned_range(to, bytes);
  if (from_pageable || to_pageable) counters.unpinned_copies++;
  // Pageable memory is staged before the call returns; page-locked memory is read when the copy runs, and must be left alone
  // until then.
  std::shared_ptr<std::vector<char>> staged;
  if (from_pageable) staged = std::make_shared<std::vector<char>>(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
  const cudaError_t error = enqueue(stream, [=]() -> int {
    if (!staged && !check()) return cudaErrorIllegalAddress;
    if (staged && !check_side("cudaMemcpy", "the target", to, bytes, to_device)) return cudaErrorIllegalAddress;
    memmove(to, staged ? staged->data() : from, bytes);
    return cudaSuccess;
  });
  return error || !to_pageable ? error : synchronize(stream);  // a copy into pageable memory is synchronous
}

cudaError_t fill(void *to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!check_side("cudaMemset", "the target", to, bytes, true)) return cudaErrorInvalidValue;
  return enqueue(stream, [=]() -> int {
    if (!check_side("cudaMemset", "the target", to, bytes, true)) return cudaErrorIllegalAddress;
    memset(to, value, bytes);
    return cudaSuccess;
  });
}

}  // namespace

}  // namespace emu

using namespace emu;

extern "C" {

EMU_EXPORT cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return device_call([=] { return copy(to, from, bytes, kind, stream); });
}
EMU_EXPORT cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  return device_call([=] {
    cudaError_t error = copy(to, from, bytes, kind, nullptr);
    if (!error) error = synchronize(nullptr);
    return error ? error : after_synchronizing();
  });
}
EMU_EXPORT cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  return device_call([=] { return fill(to, value, bytes, stream); });
}
EMU_EXPORT cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

}  // extern "C"
