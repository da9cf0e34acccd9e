// The ops as Python sees them: each checks its arrays, releases the GIL and calls the backend's kernel.
#pragma once

#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "geometry.hpp"

namespace fastconv::bindings {

// The GIL, released for the time of a kernel. At interpreter exit a daemon thread never gets it back: Python ends the
// thread by unwinding its stack, which must be let through here.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() noexcept(false) { PyEval_RestoreThread(state_); }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

inline std::string type_of(const py::handle& value) { return py::str(py::type::handle_of(value).attr("__name__")); }

inline std::string string_of(const py::object& value, const char* name) {
  if (!py::isinstance<py::str>(value))
    throw py::type_error(std::string(name) + " must be a str, got " + type_of(value));
  return value.cast<std::string>();
}

inline Precision parse_precision(const py::object& precision) {
  const std::string name = string_of(precision, "precision");
  if (name == "fp32") return Precision::fp32;
  if (name != "tf32") throw py::value_error("precision must be \"fp32\" or, on a GPU, \"tf32\", got \"" + name + "\"");
#ifndef FASTCONV_GPU
  throw py::value_error("precision \"tf32\" is for arrays on a GPU: use \"fp32\"");
#endif
  return Precision::tf32;
}

template <class T>
void check_precision(Precision precision, const char* name) {
  if (precision == Precision::fp32 || std::is_same_v<T, float>) return;
  throw py::value_error(std::string("precision \"tf32\" is for float32 arrays, and ") + name + " has dtype " +
                        type_name<T>() + ": use \"fp32\"");
}

inline ConvOptions conv_options(const py::object& algorithm, const py::object& precision,
                                const py::object& workspace_limit) {
  ConvOptions options;
  options.algorithm = parse_algorithm(string_of(algorithm, "algorithm"));
  options.precision = parse_precision(precision);
  if (workspace_limit.is_none()) return options;
  if (PyIndex_Check(workspace_limit.ptr()) == 0 || PyBool_Check(workspace_limit.ptr()) != 0) {
    throw py::type_error("workspace_limit must be an int of bytes or None, got " + type_of(workspace_limit));
  }
  const Py_ssize_t bytes =
      PyNumber_AsSsize_t(workspace_limit.ptr(), nullptr);  // clipped: more than there is, is no limit
  if (bytes < 0)
    throw py::value_error("workspace_limit must not be negative, got " + std::string(py::str(workspace_limit)));
  options.workspace_limit = static_cast<std::size_t>(bytes);
  return options;
}

template <class T>
Vector<const T> optional_vector(const std::optional<py::array>& a, const char* name, int64_t size, const char* why,
                                const char* like) {
  if (!a) return {};
  check_type<T>(*a, name, like);
  check_shape(*a, name, {size}, why);
  return {static_cast<const T*>(a->data()), a->strides(0) / a->itemsize()};
}

// An array of a convolution, with its name and shape in messages; filters never have their channels last.
struct Argument {
  const py::array& array;
  const char* name;
  const Dims& shape;
  const char* why;
  bool channels_last;
};

constexpr const char* kOfGeometry = "the geometry's";

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
    const std::optional<py::array> bias_view = bias ? std::optional(addressable(*bias)) : bias;
    const auto bias_vector = optional_vector<T>(bias_view, "bias", channels, "one per channel of the output", a.name);
    check_type<T>(out, "out", a.name);
    check_shape(out, "out", out_shape, out_why);
    check_writable(out, "out");
    const py::array a_view = addressable(a.array), b_view = addressable(b.array);
    const auto at = readable<T>(a_view, a.channels_last), bt = readable<T>(b_view, b.channels_last);
    const auto result = writable<T>(out, channels_last);
    const ReleasedGil release;
    run(at, bt, bias_vector, result);
  });
}

inline void conv_fprop(const ConvGeometry& g, const py::array& x, const py::array& w,
                       const std::optional<py::array>& bias, py::array& y, bool relu, const py::object& algorithm,
                       const py::object& precision, const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {x, "x", g.x, kOfGeometry, g.channels_last}, {w, "w", g.w, kOfGeometry, false}, bias,
                g.shape.k, y, g.y, "the output's", g.channels_last,
                [&](auto xt, auto wt, auto b, auto yt) { backend::conv_fprop(g.shape, xt, wt, b, relu, yt, options); });
}

inline void conv_dgrad(const ConvGeometry& g, const py::array& dy, const py::array& w, py::array& dx,
                       const py::object& algorithm, const py::object& precision, const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
                {w, "w", g.w, kOfGeometry, false}, {}, 0, dx, g.x, "input_shape", g.channels_last,
                [&](auto dyt, auto wt, auto, auto dxt) { backend::conv_dgrad(g.shape, dyt, wt, dxt, options); });
}

inline void conv_wgrad(const ConvGeometry& g, const py::array& dy, const py::array& x, py::array& dw,
                       const py::object& algorithm, const py::object& precision, const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.y, "the shape of conv's output for these arguments", g.channels_last},
                {x, "x", g.x, kOfGeometry, g.channels_last}, {}, 0, dw, g.w, "weight_shape", false,
                [&](auto dyt, auto xt, auto, auto dwt) { backend::conv_wgrad(g.shape, dyt, xt, dwt, options); });
}

// Transposed: the geometry is that of the convolution whose input gradient this is, so x has its outputs.
constexpr const char* kOfTranspose = "the shape of conv_transpose's output for these arguments";

inline void conv_transpose_fprop(const ConvGeometry& g, const py::array& x, const py::array& w,
                                 const std::optional<py::array>& bias, py::array& y, bool relu,
                                 const py::object& algorithm, const py::object& precision,
                                 const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {x, "x", g.y, kOfGeometry, g.channels_last}, {w, "w", g.w, kOfGeometry, false}, bias,
                g.shape.c, y, g.x, "the output's", g.channels_last, [&](auto xt, auto wt, auto b, auto yt) {
                  backend::conv_transpose_fprop(g.shape, xt, wt, b, relu, yt, options);
                });
}

inline void conv_transpose_dgrad(const ConvGeometry& g, const py::array& dy, const py::array& w, py::array& dx,
                                 const py::object& algorithm, const py::object& precision,
                                 const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.x, kOfTranspose, g.channels_last}, {w, "w", g.w, kOfGeometry, false},
                {}, 0, dx, g.y, "input_shape", g.channels_last, [&](auto dyt, auto wt, auto none, auto dxt) {
                  backend::conv_fprop(g.shape, dyt, wt, none, false, dxt, options);
                });
}

inline void conv_transpose_wgrad(const ConvGeometry& g, const py::array& dy, const py::array& x, py::array& dw,
                                 const py::object& algorithm, const py::object& precision,
                                 const py::object& workspace_limit) {
  const ConvOptions options = conv_options(algorithm, precision, workspace_limit);
  with_operands(options.precision, {dy, "dy", g.x, kOfTranspose, g.channels_last},
                {x, "x", g.y, kOfGeometry, g.channels_last}, {}, 0, dw, g.w, "weight_shape", false,
                [&](auto dyt, auto xt, auto, auto dwt) { backend::conv_wgrad(g.shape, xt, dyt, dwt, options); });
}

inline void conv_bgrad(const py::array& dy, py::array& db, bool channels_last) {
  if (dy.ndim() < 3 || dy.ndim() > 5) {
    throw py::value_error("dy must have 3, 4 or 5 axes, got shape " + to_string(dims_of(dy)));
  }
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    const int64_t channels = dy.shape(channels_last ? dy.ndim() - 1 : 1);
    check_type<T>(db, "out", "dy");
    check_shape(db, "out", {channels}, "one per channel of dy");
    check_writable(db, "out");
    const py::array dy_view = addressable(dy);
    const auto dyt = readable<T>(dy_view, channels_last);
    const std::array<int64_t, 5> shape = tensor_shape(dy, channels_last);
    const Vector<T> sums{static_cast<T*>(db.mutable_data()), db.strides(0) / db.itemsize()};
    const ReleasedGil release;
    backend::conv_bgrad<T>(shape, dyt, sums);
  });
}

inline void max_pool_fprop(const PoolGeometry& g, const py::array& x, py::array& y, std::optional<py::array> indices) {
  g.check_max_pool();
  visit_number(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_shape(x, "x", g.x, "the geometry's");
    check_type<T>(y, "out", "x");
    check_shape(y, "out", g.y, "the output's");
    check_writable(y, "out");
    Tensor<int64_t> it;
    if (indices) {
      check_type<int64_t>(*indices, "indices", "");
      check_shape(*indices, "indices", g.y, "the output's");
      check_writable(*indices, "indices");
      it = writable<int64_t>(*indices, g.channels_last);
    }
    const py::array x_view = addressable(x);
    const auto xt = readable<T>(x_view, g.channels_last);
    const auto yt = writable<T>(y, g.channels_last);
    const ReleasedGil release;
    backend::max_pool_fprop<T>(g.shape, xt, yt, it);
  });
}

inline void max_pool_offsets_fprop(const PoolGeometry& g, const py::array& x, bool rectified, py::array& y,
                                   py::array& offsets) {
  g.check_max_pool();
  g.check_offsets();
  visit_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_shape(x, "x", g.x, kOfGeometry);
    check_type<T>(y, "out", "x");
    check_shape(y, "out", g.y, "the output's");
    check_writable(y, "out");
    check_type<uint8_t>(offsets, "offsets", "");
    check_shape(offsets, "offsets", g.y, "the output's");
    check_writable(offsets, "offsets");
    const py::array x_view = addressable(x);
    const auto xt = readable<T>(x_view, g.channels_last);
    const auto yt = writable<T>(y, g.channels_last);
    const auto at = writable<uint8_t>(offsets, g.channels_last);
    const ReleasedGil release;
    backend::max_pool_offsets_fprop<T>(g.shape, xt, rectified, yt, at);
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
    check_type<T>(dx, "out", "dy");
    check_shape(dx, "out", g.x, "input_shape");
    check_writable(dx, "out");
    const py::array dy_view = addressable(dy);
    const auto dyt = readable<T>(dy_view, g.channels_last);
    const auto at = readable<uint8_t>(offsets, g.channels_last);
    const auto dxt = writable<T>(dx, g.channels_last);
    const ReleasedGil release;
    backend::max_pool_offsets_dgrad<T>(g.shape, dyt, at, dxt);
  });
}

inline void max_pool_dgrad(const py::array& dy, const py::array& indices, py::array& dx, bool channels_last,
                           bool fresh) {
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    const Dims y = dims_of(dy), x = dims_of(dx);
    const std::size_t rank = y.size(), c = channels_last ? rank - 1 : 1, first = channels_last ? 1 : 2;
    if (rank < 3 || rank > 5) throw py::value_error("dy must have 3, 4 or 5 axes, got shape " + to_string(y));
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
    const py::array dy_view = addressable(dy), indices_view = addressable(indices);
    const auto dyt = readable<T>(dy_view, channels_last);
    const auto it = readable<int64_t>(indices_view, channels_last);
    const auto dxt = writable<T>(dx, channels_last);
    const ReleasedGil release;
    backend::max_pool_dgrad<T>(shape, dyt, it, dxt, fresh);
  });
}

inline void avg_pool_fprop(const PoolGeometry& g, const py::array& x, py::array& y, bool count_padding,
                           int64_t divisor) {
  visit_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_shape(x, "x", g.x, "the geometry's");
    check_type<T>(y, "out", "x");
    check_shape(y, "out", g.y, "the output's");
    check_writable(y, "out");
    const py::array x_view = addressable(x);
    const auto xt = readable<T>(x_view, g.channels_last);
    const auto yt = writable<T>(y, g.channels_last);
    const ReleasedGil release;
    backend::avg_pool_fprop<T>(g.shape, {divisor, count_padding}, xt, yt);
  });
}

inline void avg_pool_dgrad(const PoolGeometry& g, const py::array& dy, py::array& dx, bool count_padding,
                           int64_t divisor) {
  visit_float(dy, "dy", [&](auto zero) {
    using T = decltype(zero);
    check_shape(dy, "dy", g.y, "the shape of the pool's output for these arguments");
    check_type<T>(dx, "out", "dy");
    check_shape(dx, "out", g.x, "input_shape");
    check_writable(dx, "out");
    const py::array dy_view = addressable(dy);
    const auto dyt = readable<T>(dy_view, g.channels_last);
    const auto dxt = writable<T>(dx, g.channels_last);
    const ReleasedGil release;
    backend::avg_pool_dgrad<T>(g.shape, {divisor, count_padding}, dyt, dxt);
  });
}

inline void check_rank(const py::array& a, const char* name, py::ssize_t rank) {
  if (a.ndim() == rank) return;
  throw py::value_error(std::string(name) + " must have " + std::to_string(rank) + " axes, got shape " +
                        to_string(dims_of(a)));
}

inline void matmul(const py::array& a, const py::array& b, const std::optional<py::array>& bias, py::array& c,
                   bool relu, const py::object& precision) {
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
    const std::optional<py::array> bias_view = bias ? std::optional(addressable(*bias)) : bias;
    const auto vector = optional_vector<T>(bias_view, "bias", b.shape(1), "one per column of b", "a");
    check_type<T>(c, "out", "a");
    check_shape(c, "out", {a.shape(0), b.shape(1)}, "rows of a, columns of b");
    check_writable(c, "out");
    const py::array a_view = addressable(a), b_view = addressable(b);
    const auto am = readable_matrix<T>(a_view), bm = readable_matrix<T>(b_view);
    const Matrix<T> cm{static_cast<T*>(c.mutable_data()), c.shape(0), c.shape(1), c.strides(0) / c.itemsize(),
                       c.strides(1) / c.itemsize()};
    const ReleasedGil release;
    backend::matmul<T>(am, bm, vector, relu, cm, products);
  });
}

inline void column_sum(const py::array& a, py::array& sums) {
  visit_float(a, "a", [&](auto zero) {
    using T = decltype(zero);
    check_rank(a, "a", 2);
    check_type<T>(sums, "out", "a");
    check_shape(sums, "out", {a.shape(1)}, "one per column of a");
    check_writable(sums, "out");
    const py::array a_view = addressable(a);
    const auto am = readable_matrix<T>(a_view);
    const Vector<T> out{static_cast<T*>(sums.mutable_data()), sums.strides(0) / sums.itemsize()};
    const ReleasedGil release;
    backend::column_sum<T>(am, out);
  });
}

template <class T>
void check_contiguous(const py::array& a, const char* name) {
  check_type<T>(a, name, "");
  if ((a.flags() & py::array::c_style) == 0 || !element_strides(a)) {
    throw py::value_error(std::string(name) + " must be C-contiguous and aligned");
  }
}

inline void relu(const py::array& x, py::array& y) {
  visit_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    check_contiguous<T>(x, "x");
    check_contiguous<T>(y, "out");
    check_shape(y, "out", dims_of(x), "the shape of x");
    check_writable(y, "out");
    const T* from = static_cast<const T*>(x.data());
    T* to = static_cast<T*>(y.mutable_data());
    const int64_t size = x.size();
    const ReleasedGil release;
    backend::relu<T>(from, to, size);
  });
}

inline void relu_grad(const py::array& dy, const py::array& y, py::array& dx) {
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
    const ReleasedGil release;
    backend::relu_grad<T>(gradient, value, to, size);
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
    const ReleasedGil release;
    backend::add<T>(first, second, relu, to, size);
  });
}

inline py::tuple plan_conv(const ConvGeometry& g, const std::string& pass, bool float32, const std::string& algorithm) {
  const Pass p = pass == "forward" ? Pass::forward : pass == "input" ? Pass::input : Pass::weight;
  const ConvPlan plan = backend::plan_conv(p, g.shape, float32, parse_algorithm(algorithm));
  return py::make_tuple(to_string(plan.algorithm), plan.reason);
}

}  // namespace fastconv::bindings
