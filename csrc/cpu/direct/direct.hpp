// Convolution without packed patches, from a small copy of the input in which every output's patch lies alike.
#pragma once

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::direct {

// Whether what a filter spans is small enough to be copied: not with extreme dilation.
bool serves(const ConvShape& shape);

template <class T>
const ConvAlgorithm<T>& algorithm();

}  // namespace fastconv::cpu::direct
