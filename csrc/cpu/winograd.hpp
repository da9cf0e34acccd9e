// Winograd's minimal filtering F(4x4, 3x3): 3x3 convolution without stride with 4 times fewer multiplications.
#pragma once

#include "../ops.hpp"

namespace fastconv::cpu::winograd {

// 3x3 taps, no stride, no dilation, no groups, two dimensions.
bool serves(const ConvShape& shape);

template <class T>
void fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit);
template <class T>
void dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit);
template <class T>
void wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit);

}  // namespace fastconv::cpu::winograd
