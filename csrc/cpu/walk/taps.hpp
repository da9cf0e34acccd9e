// The taps of a filter by their numbers.
#pragma once

#include "conv_shape.hpp"

namespace fastconv::cpu {

struct Tap {
  int64_t t, r, s;
};
inline Tap tap_at(const ConvShape& shape, int64_t tap) {
  const auto& [depth, height, width] = shape.axis;
  return {tap / width.filter / height.filter, tap / width.filter % height.filter, tap % width.filter};
}

}  // namespace fastconv::cpu
