// Convolution and transposed convolution as Python sees them: each pass checks its arrays, releases the GIL and calls
// the backend's kernel.
#pragma once

#include <algorithm>
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

// The operands of a pass and its result, and what keeps copies of them alive.
template <class T>
struct Operands {
  Tensor<const T> a, b;
  Vector<const T> bias;
  Tensor<T> out;
  py::object a_view, b_view;
  std::optional<py::array> bias_view;
};

// Checks the operands a and b, the bias of `channels` and the result.
template <class T>
Operands<T> checked(Precision precision, const Argument& a, const Argument& b, const std::optional<py::array>& bias,
                    int64_t channels, py::array& out, const Dims& out_shape, const char* out_why, bool channels_last) {
  check_precision<T>(precision, a.name);
  check_type<T>(b.array, b.name, a.name);
  check_shape(a.array, a.name, a.shape, a.why);
  check_shape(b.array, b.name, b.shape, b.why);
  if (bias) check_type<T>(*bias, "bias", a.name);
  const std::optional<py::array> bias_view = bias ? std::optional(addressable(*bias, "bias")) : bias;
  const auto bias_vector = optional_vector<T>(bias_view, "bias", channels, "one per channel of the output", a.name);
  check_output<T>(out, "out", a.name, out_shape, out_why);
  const py::array a_view = addressable(a.array, a.name), b_view = addressable(b.array, b.name);
  return {readable<T>(a_view, a.channels_last),
          readable<T>(b_view, b.channels_last),
          bias_vector,
          writable<T>(out, channels_last),
          a_view,
          b_view,
          bias_view};
}

inline void conv_fprop(const ConvGeometry& g, const py::array& x, const py::array& w,
                       const std::optional<py::array>& bias, py::array& y, bool relu, const Word& algorithm,
                       const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  visit_float(x, "x", [&](auto zero) {
    const auto o = checked<decltype(zero)>(options.precision, {x, "x", g.x, kOfGeometry, g.channels_last},
                                           {w, "w", g.w, kOfGeometry, false}, bias, g.shape.k, y, g.y, "the output's",
                                           g.channels_last);
    const KernelScope scope;
    backend::conv_fprop(g.shape, o.a, o.b, o.bias, o.out, relu, options);
  });
}

inline void conv_dgrad(const ConvGeometry& g, const py::array& dy, const py::array& w, py::array& dx,
                       const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  visit_float(dy, "dy", [&](auto zero) {
    const auto o = checked<decltype(zero)>(
        options.precision, {dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
        {w, "w", g.w, kOfGeometry, false}, {}, 0, dx, g.x, "input_shape", g.channels_last);
    const KernelScope scope;
    backend::conv_dgrad(g.shape, o.a, o.b, o.out, options);
  });
}

inline void conv_wgrad(const ConvGeometry& g, const py::array& dy, const py::array& x, py::array& dw,
                       const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  visit_float(dy, "dy", [&](auto zero) {
    const auto o = checked<decltype(zero)>(
        options.precision, {dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
        {x, "x", g.x, kOfGeometry, g.channels_last}, {}, 0, dw, g.w, "weight_shape", false);
    const KernelScope scope;
    backend::conv_wgrad(g.shape, o.a, o.b, o.out, options);
  });
}

// Transposed: the geometry is that of the convolution whose input gradient this is, so x has its outputs.
constexpr const char* kOfTranspose = "the shape of conv_transpose's output for these arguments";

inline void conv_transpose_fprop(const ConvGeometry& g, const py::array& x, const py::array& w,
                                 const std::optional<py::array>& bias, py::array& y, bool relu, const Word& algorithm,
                                 const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  visit_float(x, "x", [&](auto zero) {
    const auto o = checked<decltype(zero)>(options.precision, {x, "x", g.y, kOfGeometry, g.channels_last},
                                           {w, "w", g.w, kOfGeometry, false}, bias, g.shape.c, y, g.x, "the output's",
                                           g.channels_last);
    const KernelScope scope;
    backend::conv_transpose_fprop(g.shape, o.a, o.b, o.bias, o.out, relu, options);
  });
}

inline void conv_transpose_dgrad(const ConvGeometry& g, const py::array& dy, const py::array& w, py::array& dx,
                                 const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  visit_float(dy, "dy", [&](auto zero) {
    const auto o =
        checked<decltype(zero)>(options.precision, {dy, "dy", g.x, kOfTranspose, g.channels_last},
                                {w, "w", g.w, kOfGeometry, false}, {}, 0, dx, g.y, "input_shape", g.channels_last);
    const KernelScope scope;
    backend::conv_fprop(g.shape, o.a, o.b, o.bias, o.out, false, options);
  });
}

inline void conv_transpose_wgrad(const ConvGeometry& g, const py::array& dy, const py::array& x, py::array& dw,
                                 const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  visit_float(dy, "dy", [&](auto zero) {
    const auto o =
        checked<decltype(zero)>(options.precision, {dy, "dy", g.x, kOfTranspose, g.channels_last},
                                {x, "x", g.y, kOfGeometry, g.channels_last}, {}, 0, dw, g.w, "weight_shape", false);
    const KernelScope scope;
    backend::conv_wgrad(g.shape, o.b, o.a, o.out, options);
  });
}

// The sums of dy over all axes but its channels.
template <class T>
Vector<T> bias_gradient(py::array& db, int64_t channels) {
  check_output<T>(db, "out", "dy", {channels}, "one per channel of dy");
  return {static_cast<T*>(db.mutable_data()), db.strides(0) / db.itemsize()};
}

inline void conv_bgrad(const py::array& dy, py::array& db, bool channels_last) {
  check_image_rank(dy, "dy");
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    const auto sums = bias_gradient<T>(db, dy.shape(channels_last ? dy.ndim() - 1 : 1));
    const py::array dy_view = addressable(dy, "dy");
    const auto dyt = readable<T>(dy_view, channels_last);
    const std::array<int64_t, 5> shape = tensor_shape(dy, channels_last);
    const KernelScope scope;
    backend::conv_bgrad<T>(shape, dyt, sums);
  });
}

// All gradients at once, those that are not None.
template <class Run>
void all_gradients(const Argument& dy, const Argument& x, const py::array& w, const ConvGeometry& g, int64_t channels,
                   std::optional<py::array>& dx, std::optional<py::array>& dw, std::optional<py::array>& db,
                   const ConvOptions& options, Run run) {
  visit_float(dy.array, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_precision<T>(options.precision, "dy");
    check_type<T>(x.array, "x", "dy");
    check_type<T>(w, "w", "dy");
    check_shape(dy.array, "dy", dy.shape, dy.why);
    check_shape(x.array, "x", x.shape, x.why);
    check_shape(w, "w", g.w, kOfGeometry);
    if (dx) check_output<T>(*dx, "out[0]", "dy", x.shape, "x's");
    if (dw) check_output<T>(*dw, "out[1]", "dy", g.w, "w's");
    const auto sums = db ? bias_gradient<T>(*db, channels) : Vector<T>{};
    const auto dx_tensor = dx ? writable<T>(*dx, g.channels_last) : Tensor<T>{};
    const auto dw_tensor = dw ? writable<T>(*dw, false) : Tensor<T>{};
    const py::array dy_view = addressable(dy.array, "dy"), x_view = addressable(x.array, "x"),
                    w_view = addressable(w, "w");
    const auto dyt = readable<T>(dy_view, g.channels_last), xt = readable<T>(x_view, g.channels_last);
    const auto wt = readable<T>(w_view, false);
    const KernelScope scope;
    run(dyt, xt, wt, dx_tensor, dw_tensor, sums);
  });
}

inline void conv_grad(const ConvGeometry& g, const py::array& dy, const py::array& x, const py::array& w,
                      std::optional<py::array> dx, std::optional<py::array> dw, std::optional<py::array> db,
                      const py::object& algorithm, const py::object& precision, const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  all_gradients({dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
                {x, "x", g.x, kOfGeometry, g.channels_last}, w, g, g.shape.k, dx, dw, db, options,
                [&](auto... operands) { backend::conv_grad(g.shape, operands..., options); });
}

inline void conv_transpose_grad(const ConvGeometry& g, const py::array& dy, const py::array& x, const py::array& w,
                                std::optional<py::array> dx, std::optional<py::array> dw, std::optional<py::array> db,
                                const py::object& algorithm, const py::object& precision,
                                const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  all_gradients({dy, "dy", g.x, kOfTranspose, g.channels_last}, {x, "x", g.y, kOfGeometry, g.channels_last}, w, g,
                g.shape.c, dx, dw, db, options,
                [&](auto... operands) { backend::conv_transpose_grad(g.shape, operands..., options); });
}

// The strides of a dense array.
inline std::array<int64_t, 5> dense_strides(const std::array<int64_t, 5>& extents, bool channels_last) {
  std::array<int64_t, 5> strides{};
  int64_t span = 1;
  const std::array<std::size_t, 5> inner_first =
      channels_last ? std::array<std::size_t, 5>{1, 4, 3, 2, 0} : std::array<std::size_t, 5>{4, 3, 2, 1, 0};
  for (const std::size_t axis : inner_first) {
    strides[axis] = span;
    span *= std::max<int64_t>(1, extents[axis]);
  }
  return strides;
}

// What a call would do on dense arrays: (algorithm, reason, [(variant, reason)], bytes of workspace).
inline py::tuple plan_conv(const ConvGeometry& g, const std::string& pass, bool float32, const py::object& algorithm,
                           const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, py::str("fp32"), workspace_limit);
  const Pass p = pass == "forward" ? Pass::forward : pass == "input" ? Pass::input : Pass::weight;
  const auto x = dense_strides(g.shape.x_extents(), g.channels_last);
  const auto y = dense_strides(g.shape.y_extents(), g.channels_last);
  const auto w = dense_strides(g.shape.w_extents(), false);
  const ConvStrides strides = p == Pass::forward ? ConvStrides{x, w, y}
                              : p == Pass::input ? ConvStrides{y, w, x}
                                                 : ConvStrides{y, x, w};
  const ConvPlan plan = backend::plan_conv(p, g.shape, strides, float32, options);
  py::list variants;
  for (const Variant& variant : plan.variants) variants.append(py::make_tuple(variant.name, variant.reason));
  return py::make_tuple(to_string(plan.algorithm), plan.reason, variants, plan.workspace);
}

}  // namespace fastconv::bindings
