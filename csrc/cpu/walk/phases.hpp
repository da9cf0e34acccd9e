// The phases of an input gradient, inputs that no tap reaches cleared.
#pragma once

#include "adjoint.hpp"
#include "patches.hpp"

namespace fastconv::cpu {

// Cleared all at once, those that taps reach with them: phase by phase, each line of dx would be written several times.
template <class T, class Visit>
void for_each_phase(const ConvShape& s, const Tensor<const T>& w, const Tensor<T>& dx, Visit visit,
                    const Vector<const T>& bias = {}, bool relu = false) {
  bool gaps = false;
  const auto ignore = [](const auto&...) {};
  fastconv::for_each_phase(s, w, dx, ignore, [&](const auto&...) { gaps = true; });
  if (gaps) fill(dx, s.n, s.c, in_extents(s), [&](int64_t c) { return finish(T(0), bias, relu, c); });
  fastconv::for_each_phase(s, w, dx, visit, ignore);
}

}  // namespace fastconv::cpu
