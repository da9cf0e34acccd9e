// Batch normalisation as Python sees it.
#pragma once

#include "gil.hpp"
#include "views.hpp"

namespace fastconv::bindings {

// A contiguous array of one value a channel.
template <class T>
T* per_channel(const py::array& a, const char* name, int64_t channels) {
  check_contiguous<T>(a, name);
  check_shape(a, name, {channels}, "one per channel of x");
  return const_cast<T*>(static_cast<const T*>(a.data()));
}
template <class T>
T* writable_per_channel(const py::array& a, const char* name, int64_t channels) {
  check_writable(a, name);
  return per_channel<T>(a, name, channels);
}

inline void batch_moments(const py::array& x, const py::array& mean, const py::array& variance, bool channels_last) {
  visit_wide_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_image_rank(x, "x");
    const auto shape = tensor_shape(x, channels_last);
    T* means = writable_per_channel<T>(mean, "mean", shape[1]);
    T* variances = writable_per_channel<T>(variance, "variance", shape[1]);
    const py::array x_view = addressable(x, "x");
    const auto xt = readable<T>(x_view, channels_last);
    const KernelScope scope;
    backend::batch_moments<T>(shape, xt, means, variances);
  });
}

inline void batch_norm_fprop(const py::array& x, const py::array& mean, const py::array& scale, const py::array& bias,
                             py::array& y, bool relu, bool channels_last) {
  visit_wide_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_image_rank(x, "x");
    const auto shape = tensor_shape(x, channels_last);
    const T *means = per_channel<T>(mean, "mean", shape[1]), *scales = per_channel<T>(scale, "scale", shape[1]),
            *biases = per_channel<T>(bias, "bias", shape[1]);
    check_output<T>(y, "out", "x", dims_of(x), "the shape of x");
    const py::array x_view = addressable(x, "x");
    const auto xt = readable<T>(x_view, channels_last);
    const auto yt = writable<T>(y, channels_last);
    const KernelScope scope;
    backend::batch_norm_fprop<T>(shape, xt, means, scales, biases, yt, relu);
  });
}

inline void batch_norm_grad(const py::array& dy, const py::array& x, const py::array& mean, const py::array& rstd,
                            const py::array& weight, py::array& dx, const py::array& dweight, const py::array& dbias,
                            bool channels_last) {
  visit_wide_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_image_rank(x, "x");
    const auto shape = tensor_shape(x, channels_last);
    check_type<T>(x, "x", "dy");
    check_shape(dy, "dy", dims_of(x), "the shape of x");
    const T *means = per_channel<T>(mean, "mean", shape[1]), *rstds = per_channel<T>(rstd, "rstd", shape[1]),
            *weights = per_channel<T>(weight, "weight", shape[1]);
    check_output<T>(dx, "out", "dy", dims_of(x), "the shape of x");
    T* weight_grad = writable_per_channel<T>(dweight, "dweight", shape[1]);
    T* bias_grad = writable_per_channel<T>(dbias, "dbias", shape[1]);
    const py::array dy_view = addressable(dy, "dy"), x_view = addressable(x, "x");
    const auto dyt = readable<T>(dy_view, channels_last), xt = readable<T>(x_view, channels_last);
    const auto dxt = writable<T>(dx, channels_last);
    const KernelScope scope;
    backend::batch_norm_grad<T>(shape, dyt, xt, means, rstds, weights, dxt, weight_grad, bias_grad);
  });
}

}  // namespace fastconv::bindings
