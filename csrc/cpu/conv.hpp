// What the CPU backend says of its convolutions beside the ops.
#pragma once

#include <utility>
#include <vector>

#include "ops.hpp"

namespace fastconv::cpu {

// std::invalid_argument if FASTCONV_ALGORITHM or FASTCONV_WINOGRAD has a value that it does not know.
void check_environment();

// Every way in which an algorithm computes something.
std::vector<std::pair<Algorithm, Variant>> conv_variants();

}  // namespace fastconv::cpu
