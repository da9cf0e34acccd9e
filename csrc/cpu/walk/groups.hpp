// Every pass as convolutions of one group: the groups of a convolution, the phases and groups of an input gradient.
#pragma once

#include <utility>

#include "phases.hpp"

namespace fastconv::cpu {

inline ConvShape one_group(const ConvShape& s) {
  ConvShape group = s;
  group.c = s.group_c();
  group.k = s.group_k();
  group.groups = 1;
  return group;
}

template <class T>
Tensor<T> channels_from(const Tensor<T>& t, int64_t channel) {
  return {t.at(0, channel), t.stride};
}

template <class T>
Vector<const T> channels_from(const Vector<const T>& bias, int64_t channel) {
  return {bias.data != nullptr ? &bias[channel] : nullptr, bias.stride};
}

// Calls visit(shape, x, w, y, first filter) for each group.
template <class X, class W, class Y, class Visit>
void for_each_group(const ConvShape& s, const Tensor<X>& x, const Tensor<W>& w, const Tensor<Y>& y, Visit visit) {
  const ConvShape group = one_group(s);
  for (int64_t c = 0, k = 0; k < s.k; c += group.c, k += group.k)
    visit(group, channels_from(x, c), Tensor<W>{w.at(k, 0), w.stride}, channels_from(y, k), k);
}

// Calls correlate(shape, dy, w, bias, dx) for the convolutions from dy's channels to dx's.
template <class T, class Correlate>
void for_each_adjoint_group(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& w,
                            const Vector<const T>& bias, bool relu, const Tensor<T>& dx, Correlate correlate) {
  const auto visit = [&](const ConvShape& phase, const Tensor<const T>& taps, const Tensor<T>& inputs) {
    ConvShape group = one_group(phase);
    std::swap(group.c, group.k);
    for (int64_t c = 0, k = 0; c < s.c; c += group.k, k += group.c) {
      Tensor<const T> filters{taps.at(k, 0), taps.stride};
      std::swap(filters.stride[0], filters.stride[1]);
      correlate(group, channels_from(dy, k), filters, channels_from(bias, c), channels_from(inputs, c));
    }
  };
  for_each_phase(s, w, dx, visit, bias, relu);
}

}  // namespace fastconv::cpu
