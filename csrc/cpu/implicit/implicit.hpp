// Convolution as one matrix product whose right (or left) operand is the image's patches, gathered while packing.
#pragma once

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::implicit {

// Whether the batch has few outputs for each filter, as the last layers of a network have for one image: the forward
// pass, and im2col in the input gradient, then read filters where they lie.
bool few_pixels(const ConvShape& shape);

template <class T>
const ConvAlgorithm<T>& algorithm();

}  // namespace fastconv::cpu::implicit
