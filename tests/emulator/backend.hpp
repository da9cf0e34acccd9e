// What the tests of the ops know of the backend that they run on: here the CUDA kernels on the emulated device.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "cuda/runtime/context.hpp"
#include "machine.hpp"
#include "ops.hpp"

namespace fastconv::test {

// The context of calls: scratch memory that is addressed exactly, so that a byte beyond it is an error.
class Scratch {
 public:
  Scratch()
      : context_{nullptr,
                 [this](std::size_t bytes) {
                   pieces_.push_back(std::make_unique<std::vector<char>>(bytes));
                   return static_cast<void*>(pieces_.back()->data());
                 }},
        scope_(context_) {}

 private:
  std::vector<std::unique_ptr<std::vector<char>>> pieces_;
  cuda::Context context_;
  cuda::ContextScope scope_;
};

// Calls body(mode), in place of the numbers of CPU threads, in two of the emulator's modes: the usual one, and another
// by chance. Out of bounds is the same in all of them, so one does where accesses are checked. To the race detector a
// thread costs half a millisecond and the order is all the same: it sees only some of the calls.
template <class Body>
void with_threads(Body body) {
  using emulator::Order;
  static constexpr emulator::Options kModes[] = {
      {Order::reverse, 1, true},  {Order::shuffled, 7, true},  {Order::forward, 1, false},
      {Order::reverse, 1, false}, {Order::shuffled, 9, false},
  };
  static std::minstd_rand random;
  const auto in = [&](int mode) {
    const Scratch scratch;
    const emulator::Options before = emulator::options();
    if (mode > 0) emulator::options() = kModes[mode - 1];
    body(mode);
    emulator::options() = before;
  };
#if defined(FASTCONV_EMULATOR_TSAN)
  if (random() % 23 == 0) in(0);
#elif defined(FASTCONV_EMULATOR_ASAN)
  in(static_cast<int>(random() % 6));
#else
  in(0);
  in(static_cast<int>(1 + random() % 5));
#endif
}

inline constexpr bool kImplicitNeedsWorkspace = false;
inline constexpr bool kLargeProblems = false;  // minutes, under the emulator

inline bool can_serve(Algorithm algorithm, Pass, const ConvShape&) {
  return algorithm == Algorithm::implicit || algorithm == Algorithm::direct;
}

}  // namespace fastconv::test
