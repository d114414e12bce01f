#include "faults.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "block.h"
#include "memory.h"

namespace emu {

void prepare_thread_for_faults() {
#ifndef __SANITIZE_ADDRESS__
  constexpr size_t bytes = 64 << 10;
  stack_t stack = {};
  stack.ss_sp = malloc(bytes);
  stack.ss_size = bytes;
  sigaltstack(&stack, nullptr);
#endif
}

#if defined(__SANITIZE_ADDRESS__) || !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))

// AddressSanitizer reports faults itself, and ends the process.
void install_fault_handler() {}

#else

namespace {

struct sigaction previous_segv, previous_bus;
thread_local const void *fault_address EMU_TLS = nullptr;

// Runs on the faulting fiber's stack, from its top, in place of the instruction that faulted.
[[noreturn]] void fail_at_fault() {
  const char *address = static_cast<const char *>(fault_address);
  BlockRunner &own = *runner;
  char message[400];
  int error = 700;
  if (address >= own.shared_end && address < own.shared_end + 8192) {
    snprintf(message, sizeof message, "access %zu bytes past the end of %zu bytes of dynamic shared memory", static_cast<size_t>(address - own.shared_end),
             static_cast<size_t>(own.shared_end - own.shared));
  } else if (own.current && address < own.current->stack && address >= own.current->stack - kStackGuardBytes) {
    snprintf(message, sizeof message, "stack overflow: a thread's stack is %zu bytes here (setting stack)", own.stack_bytes());
    error = 719;
  } else {
    snprintf(message, sizeof message, "illegal access to %s", describe_address(address).c_str());
  }
  own.fail(error, message);
}

void on_fault(int signal, siginfo_t *info, void *raw_context) {
  if (runner && runner->current && runner->current->stack) {
    fault_address = info->si_addr;
    auto *context = static_cast<ucontext_t *>(raw_context);
    const uintptr_t top = (reinterpret_cast<uintptr_t>(runner->current->stack) + runner->stack_bytes()) & ~uintptr_t{63};
#ifdef __x86_64__
    context->uc_mcontext.gregs[REG_RSP] = static_cast<greg_t>(top - 8);  // as after a call
    context->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&fail_at_fault);
#else
    context->uc_mcontext.sp = top;
    context->uc_mcontext.pc = reinterpret_cast<uintptr_t>(&fail_at_fault);
#endif
    return;
  }
  if (is_device_address(info->si_addr)) {
    static const char text[] = "[cuda emulator] host code touches device memory\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(139);
  }
  const struct sigaction &previous = signal == SIGSEGV ? previous_segv : previous_bus;
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, raw_context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  struct sigaction fatal = {};
  fatal.sa_handler = SIG_DFL;
  sigaction(signal, &fatal, nullptr);  // the instruction faults again, and ends the process
}

void install(int signal, struct sigaction &previous) {
  struct sigaction now;
  sigaction(signal, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return;
  previous = now;
  struct sigaction ours = {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(signal, &ours, nullptr);
}

}  // namespace

void install_fault_handler() {
  install(SIGSEGV, previous_segv);
  install(SIGBUS, previous_bus);
}

#endif

}  // namespace emu
