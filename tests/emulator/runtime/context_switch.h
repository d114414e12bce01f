// Switching a thread of the machine from one stack to another: a few instructions on x86-64, ucontext elsewhere (which asks
// the kernel to save the signal mask, 5 to 10 times slower).
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#define EMU_USE_UCONTEXT 1
#include <ucontext.h>
#endif

namespace emu {

#ifdef EMU_USE_UCONTEXT

struct Context {
  ucontext_t saved;
};
inline void switch_context(Context &from, Context &to) { swapcontext(&from.saved, &to.saved); }
inline void prepare_context(Context &context, char *stack, size_t stack_bytes, void (*entry)()) {
  getcontext(&context.saved);
  context.saved.uc_stack.ss_sp = stack;
  context.saved.uc_stack.ss_size = stack_bytes;
  context.saved.uc_link = nullptr;
  makecontext(&context.saved, entry, 0);
}

#else

extern "C" __attribute__((visibility("hidden"))) void emu_switch_stack(void **save_stack_pointer, void *stack_pointer);

struct Context {
  void *stack_pointer;
};
inline void switch_context(Context &from, Context &to) { emu_switch_stack(&from.stack_pointer, to.stack_pointer); }
// Lays out the stack as emu_switch_stack leaves one: six saved registers, then the address to return to.
inline void prepare_context(Context &context, char *stack, size_t stack_bytes, void (*entry)()) {
  void **top = reinterpret_cast<void **>((reinterpret_cast<uintptr_t>(stack) + stack_bytes) & ~uintptr_t{63});
  *--top = nullptr;  // where entry's return address would be: the stack is aligned as after a call
  *--top = reinterpret_cast<void *>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  context.stack_pointer = top;
}

#endif

}  // namespace emu
