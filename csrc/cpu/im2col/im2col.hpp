// The baseline: convolution as BLAS products over materialised patches. Serves every geometry, stride and layout.
#pragma once

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::im2col {

template <class T>
const ConvAlgorithm<T>& algorithm();

}  // namespace fastconv::cpu::im2col
