// For one group, with F = C/groups * T*R*S filter cells and all pixels N*Z*P*Q of the batch:
//
//   y in channel planes (NCHW)   y[K, pixels] = w[K, F] patches[F, pixels]        vectors run along pixels
//   y with channels last (NHWC)  y[pixels, K] = patches^T[pixels, F] w^T[F, K]    vectors run along channels
//
// The filters are packed once, the patches by each task for its pixels; operands.hpp says how.
#include "implicit.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "adjoint.hpp"
#include "gemm.hpp"
#include "operands.hpp"
#include "patches.hpp"
#include "thread_pool.hpp"
#include "workspace.hpp"

namespace fastconv::cpu::implicit {
namespace {

// A pointwise convolution over planes that are one run each: rows as long as the plane keep panels whole.
template <class T>
void join_plane(ConvShape& s, Tensor<const T>& x, Tensor<T>& y) {
  if (!s.pointwise()) return;
  const auto from = spatial_stride(x, in_extents(s)), to = spatial_stride(y, out_extents(s));
  if (!from || !to) return;
  const int64_t pixels = s.pixels();
  s.axis = {};
  s.axis[2].in = s.axis[2].out = pixels;
  x.stride[4] = *from;
  y.stride[4] = *to;
}

bool channels_contiguous(int64_t channel_stride, int64_t channels) { return channel_stride == 1 && channels > 1; }

template <class T>
Lattice pixel_lattice(const ConvShape& s, const Tensor<T>& y) {
  return {{s.n, s.axis[0].out, s.axis[1].out, s.axis[2].out}, {y.stride[0], y.stride[2], y.stride[3], y.stride[4]}};
}

// One group's convolution: w's rows are its filters.
template <class T>
void correlate(ConvShape s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
               std::size_t workspace_limit) {
  join_plane(s, x, y);
  const bool channels_last_x = channels_contiguous(x.stride[1], s.c);
  const bool channels_last_y = channels_contiguous(y.stride[1], s.k) && s.axis[2].out > 1;
  const PlanePatches<T> plane_patches(s, x);
  const PixelPatches<T> pixel_patches(s, x);
  const Operand<T>& patches = channels_last_x ? static_cast<const Operand<T>&>(pixel_patches) : plane_patches;
  const Filters<T> filters(s, w, channels_last_x);

  Product<T> product;
  product.m = s.k;
  product.n = s.n * s.pixels();
  product.k = s.c * s.taps();
  product.left = &filters;
  product.right = &patches;
  product.share_left = true;
  product.result = y.data;
  product.rows = Lattice::line(s.k, y.stride[1]);
  product.cols = pixel_lattice(s, y);
  product.row_bias = bias;
  product.relu = relu;
  if (channels_last_y) {
    std::swap(product.m, product.n);
    std::swap(product.left, product.right);
    std::swap(product.share_left, product.share_right);
    std::swap(product.rows, product.cols);
    std::swap(product.row_bias, product.col_bias);
  }
  multiply(product, num_threads(), workspace_limit);
}

}  // namespace

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  ConvShape group = s;
  group.c = s.group_c();
  group.k = s.group_k();
  group.groups = 1;
  for (int64_t g = 0; g < s.groups; ++g) {
    Tensor<const T> xg{x.at(0, g * group.c), x.stride}, wg{w.at(g * group.k, 0), w.stride};
    const Vector<const T> bias_g{bias.data != nullptr ? &bias[g * group.k] : nullptr, bias.stride};
    correlate(group, xg, wg, bias_g, relu, Tensor<T>{y.at(0, g * group.k), y.stride}, workspace_limit);
  }
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit) {
  const auto visit = [&](const ConvShape& phase, Tensor<const T> taps, Tensor<T> inputs) {
    ConvShape group = phase;  // a convolution from dy's channels to dx's
    group.c = s.group_k();
    group.k = s.group_c();
    group.groups = 1;
    for (int64_t g = 0; g < s.groups; ++g) {
      Tensor<const T> dyg{dy.at(0, g * group.c), dy.stride}, wg{taps.at(g * group.c, 0), taps.stride};
      std::swap(wg.stride[0], wg.stride[1]);
      const Vector<const T> bias_g{bias.data != nullptr ? &bias[g * group.k] : nullptr, bias.stride};
      correlate(group, dyg, wg, bias_g, relu, Tensor<T>{inputs.at(0, g * group.k), inputs.stride}, workspace_limit);
    }
  };
  for_each_phase(s, w, dx, visit, bias, relu);
}

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  ConvShape group = s;
  group.c = s.group_c();
  group.k = s.group_k();
  group.groups = 1;
  const auto [t, r, f] = filter_extents(s);
  for (int64_t g = 0; g < s.groups; ++g) {
    const Tensor<const T> xg{x.at(0, g * group.c), x.stride}, dyg{dy.at(0, g * group.k), dy.stride};
    const bool channels_last = channels_contiguous(x.stride[1], group.c);
    const PlanePatchRows<T> plane_rows(group, xg, max_k_block<T>());
    const PixelPatchRows<T> pixel_rows(group, xg);
    const PixelRows<T> gradient(group, dyg);

    Product<T> product;
    product.m = group.k;
    product.n = group.c * s.taps();
    product.k = s.n * s.pixels();
    product.left = &gradient;
    product.right = channels_last ? static_cast<const Operand<T>*>(&pixel_rows) : &plane_rows;
    product.result = dw.at(g * group.k, 0);
    product.rows = Lattice::line(group.k, dw.stride[0]);
    if (channels_last) {
      product.cols = {{t, r, f, group.c}, {dw.stride[2], dw.stride[3], dw.stride[4], dw.stride[1]}};
    } else {
      product.cols = {{group.c, t, r, f}, {dw.stride[1], dw.stride[2], dw.stride[3], dw.stride[4]}};
    }
    multiply(product, num_threads(), workspace_limit);
  }
}

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::implicit
