// Max and average pooling as Python sees them.
#pragma once

#include <optional>

#include "geometry.hpp"
#include "gil.hpp"
#include "views.hpp"

namespace fastconv::bindings {

inline void max_pool_fprop(const PoolGeometry& g, const py::array& x, py::array& y, std::optional<py::array> indices) {
  g.check_max_pool();
  visit_number(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_shape(x, "x", g.x, kOfGeometry);
    check_output<T>(y, "out", "x", g.y, "the output's");
    Tensor<int64_t> it;
    if (indices) {
      check_output<int64_t>(*indices, "indices", "", g.y, "the output's");
      it = writable<int64_t>(*indices, g.channels_last);
    }
    const py::array x_view = addressable(x, "x");
    const auto xt = readable<T>(x_view, g.channels_last);
    const auto yt = writable<T>(y, g.channels_last);
    const KernelScope scope;
    backend::max_pool_fprop<T>(g.shape, xt, yt, it);
  });
}

inline void max_pool_offsets_fprop(const PoolGeometry& g, const py::array& x, py::array& y, py::array& offsets,
                                   bool rectified) {
  g.check_max_pool();
  g.check_offsets();
  visit_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_shape(x, "x", g.x, kOfGeometry);
    check_output<T>(y, "out", "x", g.y, "the output's");
    check_output<uint8_t>(offsets, "offsets", "", g.y, "the output's");
    const py::array x_view = addressable(x, "x");
    const auto xt = readable<T>(x_view, g.channels_last);
    const auto yt = writable<T>(y, g.channels_last);
    const auto at = writable<uint8_t>(offsets, g.channels_last);
    const KernelScope scope;
    backend::max_pool_offsets_fprop<T>(g.shape, xt, yt, at, rectified);
  });
}

inline void max_pool_offsets_dgrad(const PoolGeometry& g, const py::array& dy, const py::array& offsets,
                                   py::array& dx) {
  g.check_offsets();
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_shape(dy, "dy", g.y, "the shape of the pool's output for these arguments");
    check_type<uint8_t>(offsets, "offsets", "");
    check_shape(offsets, "offsets", g.y, "the shape of dy");
    check_output<T>(dx, "out", "dy", g.x, "input_shape");
    const py::array dy_view = addressable(dy, "dy");
    const auto dyt = readable<T>(dy_view, g.channels_last);
    const auto at = readable<uint8_t>(offsets, g.channels_last);
    const auto dxt = writable<T>(dx, g.channels_last);
    const KernelScope scope;
    backend::max_pool_offsets_dgrad<T>(g.shape, dyt, at, dxt);
  });
}

inline void max_pool_dgrad(const py::array& dy, const py::array& indices, py::array& dx, bool channels_last,
                           bool fresh) {
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_image_rank(dy, "dy");
    const Dims y = dims_of(dy), x = dims_of(dx);
    const std::size_t rank = y.size(), c = channels_last ? rank - 1 : 1, first = channels_last ? 1 : 2;
    if (x.size() != rank || x[0] != y[0] || x[c] != y[c]) {
      throw py::value_error("input_shape is " + to_string(x) + " but dy has shape " + to_string(y) +
                            ": batch and channels must be the same");
    }
    check_type<int64_t>(indices, "indices", "");
    check_shape(indices, "indices", y, "the shape of dy");
    check_type<T>(dx, "out", "dy");
    check_writable(dx, "out");
    PoolShape shape;
    shape.n = x[0];
    shape.c = x[c];
    for (std::size_t i = 0; i < rank - 2; ++i) {
      shape.axis[5 - rank + i].in = x[first + i];
      shape.axis[5 - rank + i].out = y[first + i];
    }
    const py::array dy_view = addressable(dy, "dy"), indices_view = addressable(indices, "indices");
    const auto dyt = readable<T>(dy_view, channels_last);
    const auto it = readable<int64_t>(indices_view, channels_last);
    const auto dxt = writable<T>(dx, channels_last);
    const KernelScope scope;
    backend::max_pool_dgrad<T>(shape, dyt, it, dxt, fresh);
  });
}

inline void avg_pool_fprop(const PoolGeometry& g, const py::array& x, py::array& y, bool count_padding,
                           int64_t divisor) {
  visit_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_shape(x, "x", g.x, kOfGeometry);
    check_output<T>(y, "out", "x", g.y, "the output's");
    const py::array x_view = addressable(x, "x");
    const auto xt = readable<T>(x_view, g.channels_last);
    const auto yt = writable<T>(y, g.channels_last);
    const KernelScope scope;
    backend::avg_pool_fprop<T>(g.shape, xt, yt, {divisor, count_padding});
  });
}

inline void avg_pool_dgrad(const PoolGeometry& g, const py::array& dy, py::array& dx, bool count_padding,
                           int64_t divisor) {
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_shape(dy, "dy", g.y, "the shape of the pool's output for these arguments");
    check_output<T>(dx, "out", "dy", g.x, "input_shape");
    const py::array dy_view = addressable(dy, "dy");
    const auto dyt = readable<T>(dy_view, g.channels_last);
    const auto dxt = writable<T>(dx, g.channels_last);
    const KernelScope scope;
    backend::avg_pool_dgrad<T>(g.shape, dyt, dxt, {divisor, count_padding});
  });
}

}  // namespace fastconv::bindings
