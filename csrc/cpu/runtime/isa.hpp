// The instruction sets the kernels are built for, and the one in use.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "cpu/kernels/table.hpp"

namespace fastconv::cpu {

// The widest instruction set of this CPU, or the one that the environment variable FASTCONV_ISA names;
// std::invalid_argument if it names none that this CPU has.
const Kernels& kernels();
// What this CPU can run, widest first.
std::vector<std::string> available_isas();

// The table of T.
template <class T, template <class> class Table>
const Table<T>& table_for(const FloatTables<Table>& tables) {
  if constexpr (std::is_same_v<T, float>) return tables.float32;
  if constexpr (std::is_same_v<T, double>) return tables.float64;
}

template <class T>
const GemmKernels<T>& gemm_kernels() {
  return table_for<T>(kernels().gemm);
}
template <class T>
const LayoutKernels<T>& layout_kernels() {
  return table_for<T>(kernels().layout);
}
template <class T>
const DepthwiseKernels<T>& depthwise_kernels() {
  return table_for<T>(kernels().depthwise);
}
template <class T>
const PoolKernels<T>& pool_kernels() {
  if constexpr (std::is_same_v<T, float>) return kernels().pool.float32;
  if constexpr (std::is_same_v<T, double>) return kernels().pool.float64;
  if constexpr (std::is_same_v<T, int8_t>) return kernels().pool.int8;
  if constexpr (std::is_same_v<T, uint8_t>) return kernels().pool.uint8;
  if constexpr (std::is_same_v<T, int32_t>) return kernels().pool.int32;
  if constexpr (std::is_same_v<T, int64_t>) return kernels().pool.int64;
}
template <class T>
const PoolGradientKernels<T>& pool_gradient_kernels() {
  return table_for<T>(kernels().pool_gradient);
}
template <class T>
const SumKernels<T>& sum_kernels() {
  return table_for<T>(kernels().sum);
}
template <class T>
const WinogradKernels<T>& winograd_kernels() {
  return table_for<T>(kernels().winograd);
}
template <class T>
const BatchNormKernels<T>& batch_norm_kernels() {
  return table_for<T>(kernels().batch_norm);
}
template <class T>
const PeakKernels<T>& peak_kernels() {
  return table_for<T>(kernels().peak);
}

// The elements of a vector.
template <class T>
int vector_lanes() {
  return layout_kernels<T>().lanes;
}

}  // namespace fastconv::cpu
