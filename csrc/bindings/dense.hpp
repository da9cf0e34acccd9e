// The products and sums of dense layers as Python sees them.
#pragma once

#include <optional>

#include "gil.hpp"
#include "options.hpp"
#include "views.hpp"

namespace fastconv::bindings {

inline void matmul(const py::array& a, const py::array& b, const std::optional<py::array>& bias, py::array& c,
                   bool relu, const Word& precision) {
  const Precision products = parse_precision(precision);
  visit_float(a, "a", [&](auto zero) {
    using T = decltype(zero);
    check_precision<T>(products, "a");
    check_rank(a, "a", 2);
    check_rank(b, "b", 2);
    check_type<T>(b, "b", "a");
    if (a.shape(1) != b.shape(0)) {
      throw py::value_error("a has shape " + to_string(dims_of(a)) + " and b " + to_string(dims_of(b)) +
                            ": the columns of a must be as many as the rows of b");
    }
    if (bias) check_type<T>(*bias, "bias", "a");
    const std::optional<py::array> bias_view = bias ? std::optional(addressable(*bias, "bias")) : bias;
    const auto vector = optional_vector<T>(bias_view, "bias", b.shape(1), "one per column of b", "a");
    check_output<T>(c, "out", "a", {a.shape(0), b.shape(1)}, "rows of a, columns of b");
    const py::array a_view = addressable(a, "a"), b_view = addressable(b, "b");
    const auto am = readable_matrix<T>(a_view), bm = readable_matrix<T>(b_view);
    const Matrix<T> cm{static_cast<T*>(c.mutable_data()), c.shape(0), c.shape(1), c.strides(0) / c.itemsize(),
                       c.strides(1) / c.itemsize()};
    const KernelScope scope;
    backend::matmul<T>(am, bm, vector, cm, relu, products);
  });
}

inline void column_sum(const py::array& a, py::array& sums) {
  visit_float(a, "a", [&](auto zero) {
    using T = decltype(zero);
    check_rank(a, "a", 2);
    check_output<T>(sums, "out", "a", {a.shape(1)}, "one per column of a");
    const py::array a_view = addressable(a, "a");
    const auto am = readable_matrix<T>(a_view);
    const Vector<T> out{static_cast<T*>(sums.mutable_data()), sums.strides(0) / sums.itemsize()};
    const KernelScope scope;
    backend::column_sum<T>(am, out);
  });
}

}  // namespace fastconv::bindings
