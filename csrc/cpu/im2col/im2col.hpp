// The baseline: convolution as BLAS products over materialised patches. Serves every geometry, stride and layout.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu::im2col {

template <class T>
void fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit);
template <class T>
void dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, std::size_t workspace_limit);
template <class T>
void wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit);

}  // namespace fastconv::cpu::im2col
