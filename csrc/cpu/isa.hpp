// The instruction sets the kernels are built for, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace fastconv::cpu {

// The widest instruction set of this CPU, or the one that the environment variable FASTCONV_ISA names;
// std::invalid_argument if it names none that this CPU has.
const Kernels& kernels();
// What this CPU can run, widest first.
std::vector<std::string> available_isas();

template <class T>
const WinogradKernels<T>& winograd_kernels() {
  if constexpr (sizeof(T) == 4) {
    return kernels().winograd32;
  } else {
    return kernels().winograd64;
  }
}

}  // namespace fastconv::cpu
