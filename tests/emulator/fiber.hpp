// A fiber: a stack that runs until it hands control back to the scheduler that entered it. One scheduler at a time.
#pragma once

#include <cstddef>

namespace fastconv::emulator {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber begin `body` when it is next entered. The body never returns: it ends with a call of leave().
  void restart(void (*body)());
  void enter();  // from the scheduler
  void leave();  // from the fiber

 private:
  char* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
};

// The race detector tells fibers apart by an identity that must live until the end of the launch: this ends it.
void forget_ended_fibers();

// Fibers that one launch may start under the race detector.
inline constexpr std::size_t kMaxTsanFibers = 7900;

}  // namespace fastconv::emulator
