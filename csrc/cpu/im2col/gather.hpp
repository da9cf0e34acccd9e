// The patches of a block of pixels as a matrix, and their sums back into an image.
#pragma once

#include <cstdint>

#include "cpu/walk/patches.hpp"

namespace fastconv::cpu {

// patches[channels * taps, block], contiguous.
template <class T>
void gather(const ConvShape& s, const Tensor<const T>& x, int64_t n, Range channels, Range block, T* patches) {
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    for (int64_t tap = 0; tap < s.taps(); ++tap, patches += block.size()) gather_row(s, x, n, c, tap, block, patches);
  }
}

// The adjoint of gather: adds patches into dx.
template <class T>
void scatter_add(const ConvShape& s, const Tensor<T>& dx, int64_t n, Range channels, Range block, const T* patches) {
  const int64_t step = s.axis[2].stride * dx.stride[4];
  for (int64_t c = channels.begin; c < channels.end; ++c) {
    for (int64_t tap = 0; tap < s.taps(); ++tap, patches += block.size()) {
      for_each_tap_run(s, dx, n, c, tap, block, [&](int64_t offset, int64_t, Range real, T* cell) {
        const T* in = patches + offset + real.begin;
        if (step == 1) {
          for (int64_t i = 0; i < real.size(); ++i) cell[i] += in[i];
        } else {
          for (int64_t i = 0; i < real.size(); ++i) cell[i * step] += in[i];
        }
      });
    }
  }
}

}  // namespace fastconv::cpu
