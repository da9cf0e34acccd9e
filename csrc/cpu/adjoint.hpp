// The phases of an input gradient, inputs that no tap reaches cleared.
#pragma once

#include "../adjoint.hpp"
#include "patches.hpp"

namespace fastconv::cpu {

template <class T, class Visit>
void for_each_phase(const ConvShape& s, const Tensor<const T>& w, const Tensor<T>& dx, Visit visit,
                    const Vector<const T>& bias = {}, bool relu = false) {
  fastconv::for_each_phase(s, w, dx, visit, [&](const ConvShape& shape, const Tensor<T>& inputs) {
    fill(inputs, s.n, s.c, out_extents(shape), [&](int64_t c) { return finish(T(0), bias, relu, c); });
  });
}

}  // namespace fastconv::cpu
