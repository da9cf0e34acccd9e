// The passes of convolution as matrix products over the tensors where they lie, or by their definition.
//
//   pass              row of a      column of b    term             c
//   forward           filter        pixel          cell of a filter y
//   input gradient    the forward pass of dy for each phase of the stride (adjoint.hpp), filters and channels exchanged
//   filter gradient   filter        cell of a      pixel            dw
//                                   filter
//
// Where the channels of the output lie densest, a and b change places, so that the columns of c are dense.
#include <algorithm>
#include <limits>
#include <utility>

#include "adjoint.hpp"
#include "cuda/gemm/chunks.cuh"
#include "cuda/gemm/pack_filters.cuh"
#include "cuda/gemm/product.cuh"
#include "cuda/gemm/wgmma.hpp"
#include "direct.cuh"

namespace fastconv::cuda {
namespace {

// Radix over the spatial extents {d, h, w}, with strides {w, h, d}, and `other`.
Radix four_digits(const std::array<int64_t, 3>& extents, const int64_t (&strides)[3], int64_t other,
                  int64_t other_stride, bool other_first) {
  Radix radix = one_digit(other, other_stride);
  for (std::size_t i = 0; i < 3; ++i) {
    radix.extent[i] = narrow(extents[2 - i]);
    radix.stride[i] = strides[i];
  }
  radix.other_first = other_first;
  return radix;
}

// Radix over the pixels of a tensor, or over its cells with its channels.
template <class T>
Radix pixels_of(const Tensor<T>& t, int64_t images, const std::array<int64_t, 3>& extents) {
  return four_digits(extents, {t.stride[4], t.stride[3], t.stride[2]}, images, t.stride[0], false);
}

std::array<int64_t, 3> filters(const ConvShape& s) { return {s.axis[0].filter, s.axis[1].filter, s.axis[2].filter}; }
std::array<int64_t, 3> outputs(const ConvShape& s) { return {s.axis[0].out, s.axis[1].out, s.axis[2].out}; }

// Patches of x: the cell of a pixel's window that a filter cell meets. Strides along the window are those of x times
// the dilation, along the pixels times the stride.
template <class T>
void patches_of(const ConvShape& s, const Tensor<const T>& x, bool channels_dense, Radix& pixels, Radix& cells,
                Operand<T>& operand) {
  pixels = pixels_of(x, s.n, outputs(s));
  cells = four_digits(filters(s), {x.stride[4], x.stride[3], x.stride[2]}, s.group_c(), x.stride[1], channels_dense);
  operand.data = x.data;
  for (std::size_t i = 0; i < 3; ++i) {
    const Axis& a = s.axis[2 - i];
    pixels.stride[i] *= a.stride;
    pixels.scale[i] = static_cast<int>(a.stride);
    pixels.shift[i] = -static_cast<int>(a.pad_begin);
    cells.stride[i] *= a.dilation;
    cells.scale[i] = static_cast<int>(a.dilation);
    operand.image[i] = narrow(a.in);
    operand.data -= a.pad_begin * x.stride[4 - i];
  }
  operand.group_stride = s.group_c() * x.stride[1];
}

// The result of a forward pass, its rows filters and its columns pixels.
template <class T>
Product<T> product_of(const ConvShape& s, const Vector<const T>& bias, bool relu, const Tensor<T>& y) {
  Product<T> p;
  p.c.data = y.data;
  p.c.group_stride = s.group_k() * y.stride[1];
  p.c.rows = one_digit(s.group_k(), y.stride[1]);
  p.c.columns = pixels_of(y, s.n, outputs(s));
  p.bias = bias;
  p.relu = relu;
  p.rows = s.group_k();
  p.columns = s.n * s.pixels();
  p.terms = s.group_c() * s.taps();
  p.groups = s.groups;
  return p;
}

template <class T>
void implicit_fprop(const ConvShape& s, const Tensor<const T>& x, const Filters<T>& w, const Vector<const T>& bias,
                    bool relu, const Tensor<T>& y, const ConvOptions& options) {
  const bool channels_dense = x.stride[1] == 1;
  std::size_t workspace_limit = options.workspace_limit;
  Product<T> p = product_of(s, bias, relu, y);
  const auto set_filters = [&](const Filters<T>& filters_of_pass) {
    p.a.data = filters_of_pass.data;
    p.a.group_stride = filters_of_pass.group_stride;
    p.a.rows = one_digit(s.group_k(), filters_of_pass.output_stride);
    p.a.terms =
        four_digits(filters(s), filters_of_pass.tap_stride, s.group_c(), filters_of_pass.input_stride, channels_dense);
    p.a.along_terms = filters_of_pass.output_stride != 1;
  };
  set_filters(w);
  patches_of(s, x, channels_dense, p.b.rows, p.b.terms, p.b);
  p.b.along_terms = channels_dense;
  // Patches that tensor cores can read by whole chunks are worth filters that they can read so too.
  if (on_tensor_cores<T>(options.precision) && by_chunks(p.b, true) && !by_chunks(p.a, true) &&
      !by_chunks(p.a, false)) {
    set_filters(with_channels_innermost(w, s, workspace_limit));
  }
  if (y.stride[1] == 1) exchange_operands(p);
  multiply(p, options.precision, workspace_limit);
}

// Before anything is written: whether wgmma can read x, its extents {c, w, h, n}, and there is room for the filters.
template <class T>
void check_named_wgmma(const ConvShape& s, const Tensor<const T>& x, const std::array<int64_t, 4>& extents,
                       bool filters_packed, const ConvOptions& options) {
  check_wgmma(x, extents);
  const auto bytes = static_cast<std::size_t>(s.k * s.c * s.taps()) * sizeof(T);
  if (filters_packed || bytes <= options.workspace_limit) return;
  throw std::invalid_argument("workspace_limit is " + std::to_string(options.workspace_limit) +
                              " bytes, but algorithm \"wgmma\" needs " + std::to_string(bytes));
}

template <class T>
void fprop_by_wgmma(const ConvShape& s, const Tensor<const T>& x, const Filters<T>& w, const Vector<const T>& bias,
                    bool relu, const Tensor<T>& y) {
  static_assert(sizeof(T) == 2);
  std::size_t unlimited = std::numeric_limits<std::size_t>::max();
  Product<T> p = product_of(s, bias, relu, y);
  exchange_operands(p);
  wgmma_fprop(s, x, packed(w, s) ? w.data : with_channels_innermost(w, s, unlimited).data, p);
}

template <class T>
void implicit_wgrad(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
                    const ConvOptions& options) {
  Product<T> p;
  p.a.data = dy.data;
  p.a.group_stride = s.group_k() * dy.stride[1];
  p.a.rows = one_digit(s.group_k(), dy.stride[1]);
  p.a.terms = pixels_of(dy, s.n, outputs(s));
  p.a.along_terms = dy.stride[1] != 1;
  const bool channels_dense = x.stride[1] == 1;
  patches_of(s, x, channels_dense, p.b.terms, p.b.rows, p.b);
  p.b.along_terms = !channels_dense;
  p.c.data = dw.data;
  p.c.group_stride = s.group_k() * dw.stride[0];
  p.c.rows = one_digit(s.group_k(), dw.stride[0]);
  p.c.columns =
      four_digits(filters(s), {dw.stride[4], dw.stride[3], dw.stride[2]}, s.group_c(), dw.stride[1], channels_dense);
  p.rows = s.group_k();
  p.columns = s.group_c() * s.taps();
  p.terms = s.n * s.pixels();
  p.groups = s.groups;
  multiply(p, options.precision, options.workspace_limit);
}

// The groups' matrices have a row or a sum of one channel: tiles of a product would be nearly empty.
bool thin(const ConvShape& s) { return s.groups > 1 && (s.group_c() == 1 || s.group_k() == 1); }

// std::invalid_argument if the algorithm is named and cannot serve the shape.
ConvPlan plan(Pass pass, const ConvShape& shape, Algorithm algorithm) {
  if (algorithm == Algorithm::im2col || algorithm == Algorithm::winograd) {
    throw std::invalid_argument(std::string("algorithm \"") + to_string(algorithm) +
                                "\" has no GPU kernel; \"auto\", \"implicit\" and \"direct\" have");
  }
  if (const char* needs = algorithm == Algorithm::wgmma ? wgmma_needs(pass, shape) : nullptr) {
    throw std::invalid_argument(std::string("algorithm \"wgmma\" cannot serve this: it needs ") + needs +
                                "; \"auto\", \"implicit\" and \"direct\" can");
  }
  if (algorithm != Algorithm::automatic) return {algorithm, "asked for"};
  if (thin(shape)) return {Algorithm::direct, "groups of one channel or one filter: tiles would be nearly empty"};
  return {Algorithm::implicit, "a matrix product that gathers the patches"};
}

// The algorithm to take, after every check of the shape.
Algorithm choose(Pass pass, const ConvShape& s, const ConvOptions& options) {
  check_extents(s.axis);
  narrow(s.c), narrow(s.k);
  return plan(pass, s, options.algorithm).algorithm;
}

template <class T>
void fprop(Algorithm algorithm, const ConvShape& s, const Tensor<const T>& x, const Filters<T>& w,
           const Vector<const T>& bias, bool relu, const Tensor<T>& y, const ConvOptions& options) {
  if (algorithm == Algorithm::direct) return direct_conv(s, x, w, bias, relu, y);
  if (algorithm == Algorithm::wgmma) {
    if constexpr (sizeof(T) == 2) return fprop_by_wgmma(s, x, w, bias, relu, y);
    throw std::logic_error("algorithm \"wgmma\" was let through for a type that check_wgmma refuses");
  }
  implicit_fprop(s, x, w, bias, relu, y, options);
}

}  // namespace

ConvPlan plan_conv(Pass pass, const ConvShape& shape, const ConvStrides&, bool, const ConvOptions& options) {
  return plan(pass, shape, options.algorithm);
}

template <class T>
void conv_fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, Tensor<T> y, bool relu,
                const ConvOptions& options) {
  const Algorithm algorithm = choose(Pass::forward, s, options);
  if (s.n == 0 || s.k == 0) return;
  const auto filters_of_pass = Filters<T>::forward(w, s);
  if (algorithm == Algorithm::wgmma) {
    check_named_wgmma(s, x, {s.c, s.axis[2].in, s.axis[1].in, s.n}, packed(filters_of_pass, s), options);
  }
  fprop(algorithm, s, x, filters_of_pass, bias, relu, y, options);
}

template <class T>
void conv_transpose_fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, Tensor<T> y,
                          bool relu, const ConvOptions& options) {
  const Algorithm algorithm = choose(Pass::input, s, options);
  if (s.n == 0 || s.c == 0) return;
  if (algorithm == Algorithm::wgmma) {
    check_named_wgmma(s, x, {s.k, s.axis[2].out, s.axis[1].out, s.n}, false, options);
  }
  const auto pass = [&](Algorithm by, ConvShape phase, const Tensor<const T>& taps, const Tensor<T>& inputs) {
    std::swap(phase.c, phase.k);
    fprop(by, phase, x, Filters<T>::exchanged(taps, s), bias, relu, inputs, options);
  };
  for_each_phase(
      s, w, y,
      [&](const ConvShape& phase, const Tensor<const T>& taps, const Tensor<T>& inputs) {
        pass(algorithm, phase, taps, inputs);
      },
      // A sum of no taps is the bias.
      [&](const ConvShape& phase, const Tensor<T>& inputs) { pass(Algorithm::direct, phase, w, inputs); });
}

template <class T>
void conv_dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, const ConvOptions& options) {
  conv_transpose_fprop(s, dy, w, Vector<const T>{}, dx, false, options);
}

template <class T>
void conv_wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, const ConvOptions& options) {
  const Algorithm algorithm = choose(Pass::weight, s, options);
  if (s.k == 0 || s.c == 0) return;
  if (algorithm == Algorithm::direct) return direct_wgrad(s, dy, x, dw);
  implicit_wgrad(s, dy, x, dw, options);
}

template <class T>
void conv_grad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<const T> w, Tensor<T> dx, Tensor<T> dw,
               Vector<T> db, const ConvOptions& options) {
  if (dx.data != nullptr) choose(Pass::input, s, options);  // refuse before the first of them writes
  if (dw.data != nullptr) choose(Pass::weight, s, options);
  if (dx.data != nullptr) conv_dgrad(s, dy, w, dx, options);
  if (dw.data != nullptr) conv_wgrad(s, dy, x, dw, options);
  if (db.data != nullptr) conv_bgrad(s.y_extents(), dy, db);
}

template <class T>
void conv_transpose_grad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<const T> w, Tensor<T> dx,
                         Tensor<T> dw, Vector<T> db, const ConvOptions& options) {
  if (dx.data != nullptr) choose(Pass::forward, s, options);
  if (dw.data != nullptr) choose(Pass::weight, s, options);
  if (dx.data != nullptr) conv_fprop(s, dy, w, {}, dx, false, options);
  if (dw.data != nullptr) conv_wgrad(s, x, dy, dw, options);
  if (db.data != nullptr) conv_bgrad(s.x_extents(), dy, db);
}

#define FASTCONV_INSTANTIATE(T)                                                                                      \
  template void conv_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, Tensor<T>, bool,     \
                           const ConvOptions&);                                                                      \
  template void conv_transpose_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, Tensor<T>, \
                                     bool, const ConvOptions&);                                                      \
  template void conv_dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);       \
  template void conv_wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);       \
  template void conv_grad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<const T>, Tensor<T>, Tensor<T>, \
                          Vector<T>, const ConvOptions&);                                                            \
  template void conv_transpose_grad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<const T>, Tensor<T>,  \
                                    Tensor<T>, Vector<T>, const ConvOptions&);
FASTCONV_INSTANTIATE(Float16)
FASTCONV_INSTANTIATE(BFloat16)
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cuda
