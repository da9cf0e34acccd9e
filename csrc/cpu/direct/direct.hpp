// Convolution without packed patches, from a small copy of the input in which every output's patch lies alike.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu::direct {

// Whether what a filter spans is small enough to be copied: not with extreme dilation.
bool serves(const ConvShape& shape);

template <class T>
void fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit);
// The input gradient plus bias, through relu: transposed convolution has them.
template <class T>
void dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit);
template <class T>
void wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit);

}  // namespace fastconv::cpu::direct
