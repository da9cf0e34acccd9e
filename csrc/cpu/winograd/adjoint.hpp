// The input gradient by the tiles of dy, where these are fewer than those of dx.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu::winograd {

template <class T>
bool adjoint_serves(const ConvShape& shape);
template <class T>
void adjoint(const ConvShape& shape, const Tensor<const T>& dy, const Tensor<const T>& w, const Tensor<T>& dx,
             std::size_t workspace_limit);

}  // namespace fastconv::cpu::winograd
