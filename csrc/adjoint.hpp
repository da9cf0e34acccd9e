// The input gradient as convolutions without stride, one for each phase of the stride.
//
// dx[h] sums w[tap] dy[p] over the taps for which h + pad - tap * dilation = p * stride. For the inputs h = i * stride
// + phase these are every (stride / gcd(stride, dilation))-th tap, whatever i; with the last such tap first they make a
// convolution of dy at dilation / gcd. Filters and dx are the caller's, seen through other strides.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

#include "ops.hpp"

namespace fastconv {

struct Phase {
  Axis axis;                    // of the convolution; filter == 0 where no tap reaches these inputs
  int64_t first = 0, step = 1;  // its taps are first, first + step, ...
};

inline Phase make_phase(const Axis& a, int64_t phase) {
  Phase result{};
  const int64_t common = std::gcd(a.stride, a.dilation);
  result.step = a.stride / common;
  result.axis.in = a.out;
  result.axis.out = a.phase_size(phase);
  result.axis.dilation = a.dilation / common;
  result.axis.filter = 0;
  const auto offset = [&](int64_t tap) { return phase + a.pad_begin - tap * a.dilation; };
  const int64_t candidates = std::min(a.filter, result.step);
  while (result.first < candidates && offset(result.first) % a.stride != 0) ++result.first;
  if (result.first == candidates) return result;
  result.axis.filter = ceil_div(a.filter - result.first, result.step);
  result.axis.pad_begin = (result.axis.filter - 1) * result.axis.dilation - offset(result.first) / a.stride;
  return result;
}

// Calls visit(shape, w, dx) for each phase with taps: shape has the phase's axes and s's batch, channels and groups, w
// and dx show its taps and inputs. Inputs that no tap reaches are left to clear(shape, dx).
template <class T, class Visit, class Clear>
void for_each_phase(const ConvShape& s, const Tensor<const T>& w, const Tensor<T>& dx, Visit visit, Clear clear) {
  const auto phases = [&](std::size_t axis) { return s.axis[axis].phases(); };
  for (int64_t i = 0; i < phases(0) * phases(1) * phases(2); ++i) {
    const std::array<int64_t, 3> at{i / phases(2) / phases(1), i / phases(2) % phases(1), i % phases(2)};
    ConvShape shape = s;
    Tensor<const T> taps = w;
    Tensor<T> inputs = dx;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const Phase phase = make_phase(s.axis[axis], at[axis]);
      shape.axis[axis] = phase.axis;
      taps.data += (phase.first + (phase.axis.filter - 1) * phase.step) * w.stride[axis + 2];
      taps.stride[axis + 2] *= -phase.step;
      inputs.data += at[axis] * dx.stride[axis + 2];
      inputs.stride[axis + 2] *= s.axis[axis].stride;
    }
    if (shape.taps() == 0) {
      clear(shape, inputs);
    } else {
      visit(shape, taps, inputs);
    }
  }
}

}  // namespace fastconv
