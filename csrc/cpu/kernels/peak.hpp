// What the machine can do at most: fused multiply-adds that never leave the registers.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

template <class T>
struct PeakKernels {
  // Runs `rounds` of independent fused multiply-adds in registers and returns their floating-point operations.
  double (*fma)(int64_t rounds);
};

}  // namespace fastconv::cpu
