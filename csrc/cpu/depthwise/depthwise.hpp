// Convolution with one input channel a group, computed directly: there is no sum over channels to make a product of.
#pragma once

#include "cpu/walk/call.hpp"
#include "ops.hpp"

namespace fastconv::cpu::depthwise {

// One channel a group; an input gradient, one filter too.
bool serves(Pass pass, const ConvShape& shape);
template <class T>
const ConvAlgorithm<T>& algorithm();

template <class T>
void fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit);
// Needs one filter a group as well.
template <class T>
void dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, std::size_t workspace_limit);
template <class T>
void wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit);

}  // namespace fastconv::cpu::depthwise
