// Switching stacks. This file is built without the race detector, whose view of a switch is given by hand.
#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FASTCONV_EMULATOR_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}
#endif

#ifndef __x86_64__
#error "the emulator switches stacks by hand: port switch_stack to this processor"
#endif

// Saves the callee-saved registers on the current stack and its pointer in *save, then goes on where `to` was saved. No
// kernel changes the floating-point control words.
extern "C" void fastconv_switch_stack(void** save, void* to);
asm(R"(
.text
.type fastconv_switch_stack, @function
fastconv_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size fastconv_switch_stack, . - fastconv_switch_stack
)");

namespace fastconv::emulator {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;  // reserved; pages exist once they are touched
constexpr int kSavedRegisters = 6;

struct Scheduler {
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* tsan_fiber = nullptr;
} scheduler;

void (*current_body)() = nullptr;

void first_frame() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.stack_bytes);
#endif
  current_body();
}

char* new_stack() {
  void* stack =
      ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) {
    std::fputs("emulator: no memory for the stacks of a block\n", stderr);
    std::abort();
  }
  return static_cast<char*>(stack);
}

#ifdef FASTCONV_EMULATOR_TSAN
void* ended[kMaxTsanFibers];
std::size_t ended_count = 0;
#endif

}  // namespace

Fiber::~Fiber() {
  if (stack_ != nullptr) ::munmap(stack_, kStackBytes);
}

void Fiber::restart(void (*body)()) {
#ifdef FASTCONV_EMULATOR_TSAN
  // A fresh stack and a fresh identity: threads of two blocks have nothing in common.
  if (stack_ != nullptr) ::munmap(stack_, kStackBytes);
  stack_ = nullptr;
  tsan_fiber_ = __tsan_create_fiber(0);
  ended[ended_count++] = tsan_fiber_;
#endif
  if (stack_ == nullptr) stack_ = new_stack();
  current_body = body;
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(first_frame);
  stack_pointer_ = top - kSavedRegisters;
}

void Fiber::enter() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&scheduler.fake_stack, stack_, kStackBytes);
#endif
#ifdef FASTCONV_EMULATOR_TSAN
  scheduler.tsan_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_fiber_, 1);  // 1: a switch orders nothing
#endif
  fastconv_switch_stack(&scheduler.stack_pointer, stack_pointer_);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(scheduler.fake_stack, nullptr, nullptr);
#endif
}

void Fiber::leave() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&fake_stack_, scheduler.stack, scheduler.stack_bytes);
#endif
#ifdef FASTCONV_EMULATOR_TSAN
  __tsan_switch_to_fiber(scheduler.tsan_fiber, 1);
#endif
  fastconv_switch_stack(&stack_pointer_, scheduler.stack_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

void forget_ended_fibers() {
#ifdef FASTCONV_EMULATOR_TSAN
  while (ended_count > 0) __tsan_destroy_fiber(ended[--ended_count]);
#endif
}

}  // namespace fastconv::emulator
