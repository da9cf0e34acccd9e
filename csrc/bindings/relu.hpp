// ReLU, its gradient and a sum through it as Python sees them.
#pragma once

#include "gil.hpp"
#include "views.hpp"

namespace fastconv::bindings {

inline void relu_fprop(const py::array& x, py::array& y) {
  visit_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_contiguous<T>(x, "x");
    check_contiguous<T>(y, "out");
    check_shape(y, "out", dims_of(x), "the shape of x");
    check_writable(y, "out");
    const T* from = static_cast<const T*>(x.data());
    T* to = static_cast<T*>(y.mutable_data());
    const int64_t size = x.size();
    const KernelScope scope;
    backend::relu_fprop<T>(size, from, to);
  });
}

inline void relu_dgrad(const py::array& dy, const py::array& y, py::array& dx) {
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_contiguous<T>(dy, "dy");
    check_contiguous<T>(y, "y");
    check_contiguous<T>(dx, "out");
    check_shape(y, "y", dims_of(dy), "the shape of dy");
    check_shape(dx, "out", dims_of(dy), "the shape of dy");
    check_writable(dx, "out");
    const T *gradient = static_cast<const T*>(dy.data()), *value = static_cast<const T*>(y.data());
    T* to = static_cast<T*>(dx.mutable_data());
    const int64_t size = dy.size();
    const KernelScope scope;
    backend::relu_dgrad<T>(size, gradient, value, to);
  });
}

inline void add(const py::array& a, const py::array& b, py::array& y, bool relu) {
  visit_float(a, "a", [&](auto zero) {
    using T = decltype(zero);
    check_contiguous<T>(a, "a");
    check_contiguous<T>(b, "b");
    check_contiguous<T>(y, "out");
    check_shape(b, "b", dims_of(a), "the shape of a");
    check_shape(y, "out", dims_of(a), "the shape of a");
    check_writable(y, "out");
    const T *first = static_cast<const T*>(a.data()), *second = static_cast<const T*>(b.data());
    T* to = static_cast<T*>(y.mutable_data());
    const int64_t size = a.size();
    const KernelScope scope;
    backend::add<T>(size, first, second, to, relu);
  });
}

}  // namespace fastconv::bindings
