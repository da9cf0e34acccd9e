// The threads of max-pooling and average pooling.
#pragma once

#include "conv_shape.hpp"
#include "cpu/runtime/thread_pool.hpp"

namespace fastconv::cpu {

inline int pool_threads(const PoolShape& s) {
  const double cells = static_cast<double>(s.n) * static_cast<double>(s.c) * static_cast<double>(s.cells());
  return cells < kSerialCells ? 1 : num_threads();
}

}  // namespace fastconv::cpu
