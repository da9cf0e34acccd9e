// What the tests of the ops know of the backend that they run on: here the CPU.
#pragma once

#include <random>

#include "check.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "ops.hpp"

namespace fastconv::test {

// Calls body(threads) on one thread and on three, the limit of this thread meanwhile. Where a sanitizer or an emulator
// makes calls ten times as slow it is one of the two: three for races, else by chance.
template <class Body>
void with_threads(Body body) {
  const auto on = [&](int threads) {
    const int before = cpu::exchange_thread_limit(threads);
    body(threads);
    cpu::exchange_thread_limit(before);
  };
#if defined(__SANITIZE_THREAD__)
  on(3);
#else
#if defined(__SANITIZE_ADDRESS__)
  const bool both = false;
#else
  const bool both = !emulated();
#endif
  static std::minstd_rand random;
  const bool one = random() % 2 == 0;
  if (both || one) on(1);
  if (both || !one) on(3);
#endif
}

inline constexpr bool kImplicitNeedsWorkspace = true;
inline constexpr bool kLargeProblems = true;

inline bool can_serve(Algorithm algorithm, Pass, const ConvShape& s) {
  const bool plane = s.axis[0].pointwise() && s.groups == 1;
  const auto taps = [](const Axis& a, int64_t count) { return a.filter == count && a.stride == 1 && a.dilation == 1; };
  const auto square = [&](int64_t count) { return taps(s.axis[1], count) && taps(s.axis[2], count); };
  switch (algorithm) {
    case Algorithm::winograd:
      return plane && (square(3) || square(5));
    default:
      return true;
  }
}

}  // namespace fastconv::test
