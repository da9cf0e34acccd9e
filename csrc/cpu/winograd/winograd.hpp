// Winograd's minimal filtering: F(4x4, 3x3) multiplies 4 times less than the definition, F(2x2, 3x3) 2.25
// times, F(2x2, 5x5) 2.8 times.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu::winograd {

// 3x3 or 5x5 taps, no stride, no dilation, no groups, two dimensions.
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
