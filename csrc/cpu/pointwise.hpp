// Filters of one cell over channel planes: the weight gradient alone, the other passes are products as they lie.
#pragma once

#include "../ops.hpp"

namespace fastconv::cpu::pointwise {

// Whether dy and x are rows of enough pixels.
template <class T>
bool wgrad_serves(const ConvShape& shape, const Tensor<const T>& dy, const Tensor<const T>& x);

// Of one group.
template <class T>
void wgrad(const ConvShape& shape, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
           std::size_t workspace_limit);

}  // namespace fastconv::cpu::pointwise
