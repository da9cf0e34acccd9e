// Convolution with one input channel a group, computed directly: there is no sum over channels to make a product of.
#pragma once

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::depthwise {

// The input gradient needs one filter a group as well.
bool serves(Pass pass, const ConvShape& shape);

template <class T>
const ConvAlgorithm<T>& algorithm();

}  // namespace fastconv::cpu::depthwise
