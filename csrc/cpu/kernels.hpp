// The table that each instruction set's build of kernels.cpp fills in.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

struct Kernels {
  const char* isa;
  // Runs `rounds` of independent fused multiply-adds in registers and returns their floating-point operations.
  double (*fma_float32)(int64_t rounds);
  double (*fma_float64)(int64_t rounds);
};

}  // namespace fastconv::cpu
