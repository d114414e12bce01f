// What a kernel sees: qualifiers, its indices, barriers, warp operations. The work is done by libcudart_emu.so
// (runtime/block.cpp, runtime/warp.cpp), where every CUDA thread is a fiber.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

// A block never leaves its OS thread, so its shared variables are that thread's. AddressSanitizer puts no red zones around
// thread-local variables: that build has one worker thread and plain statics.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#define EMU_API __attribute__((visibility("default")))
#define EMU_TLS __attribute__((tls_model("initial-exec")))

extern EMU_API thread_local uint3 threadIdx EMU_TLS, blockIdx EMU_TLS;
extern EMU_API thread_local dim3 blockDim EMU_TLS, gridDim EMU_TLS;
constexpr int warpSize = 32;

namespace emu {

// Where in the source an operation stands, so that reports can name the line: EMU_HERE are the last parameters of a function,
// whose defaults are where it is called; EMU_AT is their value.
struct Location {
  const char *file;
  int line;
};
#define EMU_HERE const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define EMU_AT                                                                                                             \
  emu::Location { file_, line_ }

enum class WarpOp : uint8_t { sync, shuffle, ballot, add, min, max, bit_and, bit_or, bit_xor, collective };

struct Votes {
  int count, all, any;
};

// Waits until every live thread of the block has come; returns the votes of all of them.
EMU_API Votes block_barrier(int vote, Location at);
// Waits until every lane of the mask has come with the same operation; the last to come resolves it for all.
EMU_API uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int source_lane, Location at);
// All 32 lanes bring a pointer; the last to come runs `resolve` once over the 32 pointers.
EMU_API void warp_collective(void *mine, void (*resolve)(void **all), Location at);
EMU_API int lane();
// In the library, since the race checker's instrumentation does not know fences.
EMU_API void thread_fence();
EMU_API void *dynamic_shared();
// Ends the launch with a sticky error and a report that names kernel, block and thread.
[[noreturn]] EMU_API void fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
// cp.async: the bytes move only when a wait asks for them, so that a missing wait shows. valid_bytes < bytes fills with zeros.
EMU_API void async_copy(void *to, const void *from, int bytes, int valid_bytes, Location at);
EMU_API void async_commit();
EMU_API void async_wait(int groups_left);

template <class T> uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a warp operation moves up to 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T> T from_bits(uint64_t bits) {
  T value;
  memcpy(static_cast<void *>(&value), &bits, sizeof value);
  return value;
}

// The lane that a shuffle reads: its own beyond the segment of `width` lanes that it is in. As in PTX, bfly may reach a lower
// segment, up may not.
inline int source_below_end(int candidate, int width) { return candidate < (lane() & ~(width - 1)) + width ? candidate : lane(); }
inline int source_above_start(int candidate, int width) { return candidate >= (lane() & ~(width - 1)) ? candidate : lane(); }
template <class T> T shuffle(unsigned mask, T value, int source, Location at) {
  return from_bits<T>(warp_op(WarpOp::shuffle, mask, to_bits(value), source, at));
}
template <class T> T reduce(WarpOp op, unsigned mask, T value, Location at) {
  static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "__reduce_*_sync takes int or unsigned");
  return static_cast<T>(warp_op(op, mask, static_cast<uint64_t>(static_cast<int64_t>(value)), 0, at));
}

}  // namespace emu

inline void __syncthreads(EMU_HERE) { emu::block_barrier(0, EMU_AT); }
inline int __syncthreads_count(int vote, EMU_HERE) { return emu::block_barrier(vote, EMU_AT).count; }
inline int __syncthreads_and(int vote, EMU_HERE) { return emu::block_barrier(vote, EMU_AT).all; }
inline int __syncthreads_or(int vote, EMU_HERE) { return emu::block_barrier(vote, EMU_AT).any; }
inline void __syncwarp(unsigned mask = ~0u, EMU_HERE) { emu::warp_op(emu::WarpOp::sync, mask, 0, 0, EMU_AT); }

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_HERE) {
  return emu::shuffle(mask, value, (emu::lane() & ~(width - 1)) | (source & (width - 1)), EMU_AT);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMU_HERE) {
  return emu::shuffle(mask, value, emu::source_below_end(emu::lane() ^ lanes, width), EMU_AT);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, EMU_HERE) {
  return emu::shuffle(mask, value, emu::source_below_end(emu::lane() + static_cast<int>(lanes), width), EMU_AT);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, EMU_HERE) {
  return emu::shuffle(mask, value, emu::source_above_start(emu::lane() - static_cast<int>(lanes), width), EMU_AT);
}
inline unsigned __ballot_sync(unsigned mask, int vote, EMU_HERE) {
  return static_cast<unsigned>(emu::warp_op(emu::WarpOp::ballot, mask, vote != 0, 0, EMU_AT));
}
inline int __any_sync(unsigned mask, int vote, EMU_HERE) { return emu::warp_op(emu::WarpOp::ballot, mask, vote != 0, 0, EMU_AT) != 0; }
inline int __all_sync(unsigned mask, int vote, EMU_HERE) { return emu::warp_op(emu::WarpOp::ballot, mask, vote == 0, 0, EMU_AT) == 0; }

// On a GPU these need sm_80; code that must run on sm_75 uses shuffles.
inline int __reduce_add_sync(unsigned mask, int value, EMU_HERE) { return emu::reduce(emu::WarpOp::add, mask, value, EMU_AT); }
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, EMU_HERE) { return emu::reduce(emu::WarpOp::add, mask, value, EMU_AT); }
inline int __reduce_min_sync(unsigned mask, int value, EMU_HERE) { return emu::reduce(emu::WarpOp::min, mask, value, EMU_AT); }
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, EMU_HERE) { return emu::reduce(emu::WarpOp::min, mask, value, EMU_AT); }
inline int __reduce_max_sync(unsigned mask, int value, EMU_HERE) { return emu::reduce(emu::WarpOp::max, mask, value, EMU_AT); }
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, EMU_HERE) { return emu::reduce(emu::WarpOp::max, mask, value, EMU_AT); }
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, EMU_HERE) { return emu::reduce(emu::WarpOp::bit_and, mask, value, EMU_AT); }
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, EMU_HERE) { return emu::reduce(emu::WarpOp::bit_or, mask, value, EMU_AT); }
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, EMU_HERE) { return emu::reduce(emu::WarpOp::bit_xor, mask, value, EMU_AT); }

inline void __threadfence_block() { emu::thread_fence(); }
inline void __threadfence() { emu::thread_fence(); }
inline void __threadfence_system() { emu::thread_fence(); }
[[noreturn]] inline void __trap() { emu::fail(719, "__trap()"); }
