// Filters of one cell over channel planes, where these are no product of matrices as they lie.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu::pointwise {

// Whether x and y are planes, and an image's outputs few for its channels; the filter may have a stride, no padding.
template <class T>
bool serves(const ConvShape& shape, const Tensor<const T>& x, const Tensor<T>& y);

// Of one group.
template <class T>
void correlate(const ConvShape& shape, const Tensor<const T>& x, const Tensor<const T>& w, const Vector<const T>& bias,
               bool relu, const Tensor<T>& y, std::size_t workspace_limit);

// Whether dy and x are rows of enough pixels.
template <class T>
bool wgrad_serves(const ConvShape& shape, const Tensor<const T>& dy, const Tensor<const T>& x);

// Of one group.
template <class T>
void wgrad(const ConvShape& shape, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
           std::size_t workspace_limit);

}  // namespace fastconv::cpu::pointwise
