// Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308): F(4x4, 3x3) multiplies 4 times less than the
// definition, F(2x2, 3x3) 2.25 times, F(2x2, 5x5) 2.8 times.
#pragma once

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::winograd {

// 3x3 or 5x5 taps, no stride, no dilation, no groups, two dimensions; all passes.
bool serves(Pass pass, const ConvShape& shape);

template <class T>
const ConvAlgorithm<T>& algorithm();

}  // namespace fastconv::cpu::winograd
