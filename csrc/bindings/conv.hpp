// Convolution and transposed convolution as Python sees them: each pass checks its arrays, releases the GIL and calls
// the backend's kernel.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "geometry.hpp"
#include "gil.hpp"
#include "options.hpp"
#include "views.hpp"

namespace fastconv::bindings {

// An array of a convolution, with its name and shape in messages; filters never have their channels last.
struct Argument {
  const py::array& array;
  const char* name;
  const Dims& shape;
  const char* why;
  bool channels_last;
};

// Checks the operands a and b, the bias of `channels` and the result, then calls run(a, b, bias, out) without the GIL.
template <class Run>
void with_operands(Precision precision, const Argument& a, const Argument& b, const std::optional<py::array>& bias,
                   int64_t channels, py::array& out, const Dims& out_shape, const char* out_why, bool channels_last,
                   Run run) {
  visit_float(a.array, a.name, [&](auto zero) {
    using T = decltype(zero);
    check_precision<T>(precision, a.name);
    check_type<T>(b.array, b.name, a.name);
    check_shape(a.array, a.name, a.shape, a.why);
    check_shape(b.array, b.name, b.shape, b.why);
    if (bias) check_type<T>(*bias, "bias", a.name);
    const std::optional<py::array> bias_view = bias ? std::optional(addressable(*bias, "bias")) : bias;
    const auto bias_vector = optional_vector<T>(bias_view, "bias", channels, "one per channel of the output", a.name);
    check_output<T>(out, "out", a.name, out_shape, out_why);
    const py::array a_view = addressable(a.array, a.name), b_view = addressable(b.array, b.name);
    const auto at = readable<T>(a_view, a.channels_last), bt = readable<T>(b_view, b.channels_last);
    const auto result = writable<T>(out, channels_last);
    const KernelScope scope;
    run(at, bt, bias_vector, result);
  });
}

inline void conv_fprop(const ConvGeometry& g, const py::array& x, const py::array& w,
                       const std::optional<py::array>& bias, py::array& y, bool relu, const Word& algorithm,
                       const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {x, "x", g.x, kOfGeometry, g.channels_last}, {w, "w", g.w, kOfGeometry, false}, bias,
                g.shape.k, y, g.y, "the output's", g.channels_last,
                [&](auto xt, auto wt, auto b, auto yt) { backend::conv_fprop(g.shape, xt, wt, b, yt, relu, options); });
}

inline void conv_dgrad(const ConvGeometry& g, const py::array& dy, const py::array& w, py::array& dx,
                       const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
                {w, "w", g.w, kOfGeometry, false}, {}, 0, dx, g.x, "input_shape", g.channels_last,
                [&](auto dyt, auto wt, auto, auto dxt) { backend::conv_dgrad(g.shape, dyt, wt, dxt, options); });
}

inline void conv_wgrad(const ConvGeometry& g, const py::array& dy, const py::array& x, py::array& dw,
                       const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
                {x, "x", g.x, kOfGeometry, g.channels_last}, {}, 0, dw, g.w, "weight_shape", false,
                [&](auto dyt, auto xt, auto, auto dwt) { backend::conv_wgrad(g.shape, dyt, xt, dwt, options); });
}

// Transposed: the geometry is that of the convolution whose input gradient this is, so x has its outputs.
constexpr const char* kOfTranspose = "the shape of conv_transpose's output for these arguments";

inline void conv_transpose_fprop(const ConvGeometry& g, const py::array& x, const py::array& w,
                                 const std::optional<py::array>& bias, py::array& y, bool relu, const Word& algorithm,
                                 const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {x, "x", g.y, kOfGeometry, g.channels_last}, {w, "w", g.w, kOfGeometry, false}, bias,
                g.shape.c, y, g.x, "the output's", g.channels_last, [&](auto xt, auto wt, auto b, auto yt) {
                  backend::conv_transpose_fprop(g.shape, xt, wt, b, yt, relu, options);
                });
}

inline void conv_transpose_dgrad(const ConvGeometry& g, const py::array& dy, const py::array& w, py::array& dx,
                                 const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.x, kOfTranspose, g.channels_last}, {w, "w", g.w, kOfGeometry, false},
                {}, 0, dx, g.y, "input_shape", g.channels_last, [&](auto dyt, auto wt, auto none, auto dxt) {
                  backend::conv_fprop(g.shape, dyt, wt, none, dxt, false, options);
                });
}

inline void conv_transpose_wgrad(const ConvGeometry& g, const py::array& dy, const py::array& x, py::array& dw,
                                 const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.x, kOfTranspose, g.channels_last},
                {x, "x", g.y, kOfGeometry, g.channels_last}, {}, 0, dw, g.w, "weight_shape", false,
                [&](auto dyt, auto xt, auto, auto dwt) { backend::conv_wgrad(g.shape, xt, dyt, dwt, options); });
}

inline void conv_bgrad(const py::array& dy, py::array& db, bool channels_last) {
  check_image_rank(dy, "dy");
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    const int64_t channels = dy.shape(channels_last ? dy.ndim() - 1 : 1);
    check_output<T>(db, "out", "dy", {channels}, "one per channel of dy");
    const py::array dy_view = addressable(dy, "dy");
    const auto dyt = readable<T>(dy_view, channels_last);
    const std::array<int64_t, 5> shape = tensor_shape(dy, channels_last);
    const Vector<T> sums{static_cast<T*>(db.mutable_data()), db.strides(0) / db.itemsize()};
    const KernelScope scope;
    backend::conv_bgrad<T>(shape, dyt, sums);
  });
}

inline py::tuple plan_conv(const ConvGeometry& g, const std::string& pass, bool float32, const std::string& algorithm) {
  const Pass p = pass == "forward" ? Pass::forward : pass == "input" ? Pass::input : Pass::weight;
  const ConvPlan plan = backend::plan_conv(p, g.shape, float32, parse_algorithm(algorithm));
  return py::make_tuple(to_string(plan.algorithm), plan.reason);
}

}  // namespace fastconv::bindings
