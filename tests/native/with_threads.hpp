// Kernels are tested on one thread and on several, with the results held against the same loops.
#pragma once

#include "cpu/thread_pool.hpp"

namespace fastconv::test {

// Calls body(threads) on one thread and on three, the limit of this thread meanwhile.
template <class Body>
void with_threads(Body body) {
  for (const int threads : {1, 3}) {
    const int before = cpu::exchange_thread_limit(threads);
    body(threads);
    cpu::exchange_thread_limit(before);
  }
}

}  // namespace fastconv::test
