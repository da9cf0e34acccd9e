// Convolution as one matrix product whose right (or left) operand is the image's patches, gathered while packing.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu::implicit {

// Whether the batch has few outputs for each filter, as the last layers of a network have for one image: the forward
// pass, and im2col in the input gradient, then read filters where they lie.
bool few_pixels(const ConvShape& shape);

template <class T>
void fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit);
template <class T>
void dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit);
template <class T>
void wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit);

}  // namespace fastconv::cpu::implicit
