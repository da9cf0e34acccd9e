// The instruction sets the kernels are built for, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/table.hpp"

namespace fastconv::cpu {

// The widest instruction set of this CPU, or the one that the environment variable FASTCONV_ISA names;
// std::invalid_argument if it names none that this CPU has.
const Kernels& kernels();
// What this CPU can run, widest first.
std::vector<std::string> available_isas();

// The one of two tables that is for T.
template <class T, class Table32, class Table64>
const auto& table_for(const Table32& float32, const Table64& float64) {
  if constexpr (sizeof(T) == 4) {
    return float32;
  } else {
    return float64;
  }
}

template <class T>
const WinogradKernels<T>& winograd_kernels() {
  return table_for<T>(kernels().winograd32, kernels().winograd64);
}

}  // namespace fastconv::cpu
