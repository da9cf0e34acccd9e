// For one group, with F = C/groups * T*R*S filter cells and all pixels N*Z*P*Q of the batch:
//
//   y in channel planes (NCHW)   y[K, pixels] = w[K, F] patches[F, pixels]        vectors run along pixels
//   y with channels last (NHWC)  y[pixels, K] = patches^T[pixels, F] w^T[F, K]    vectors run along channels
//
// The filters are packed once, the patches by each task for its pixels (large filters of one cell the other way round);
// operands.hpp says how. Where pixels are few, filters are most of the memory and read too rarely to pay for that: the
// patches are packed once, as planes in either layout, and the micro-kernel reads the filters, rows of F, in place.
#include "implicit.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "cpu/gemm/gemm.hpp"
#include "cpu/gemm/operands.hpp"
#include "cpu/pointwise/pointwise.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/groups.hpp"
#include "cpu/walk/patches.hpp"

namespace fastconv::cpu::implicit {
namespace {

// Few pixels: their patches stay in the second-level cache, and there are so many at most for each filter.
constexpr int64_t kFewPixels = 256;
constexpr double kPixelsPerFilter = 0.35;
constexpr int64_t kLargeFilters = 1 << 20;  // bytes

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

// A tensor of dense planes.
template <class T>
Tensor<T> dense_planes(T* data, int64_t channels, const Extents& e) {
  return {data, {channels * volume(e), volume(e), e[1] * e[2], e[2], 1}};
}

// to[channel][e] = from[channel][e] for all images; columns are any step apart in `from`, 1 or 2 in `to`.
template <class T>
void copy_planes(const ConvShape& s, int64_t channels, const Extents& e, const Tensor<const T>& from,
                 const Tensor<T>& to) {
  parallel_for(s.n * channels, s.flops() < kSerialFlops ? 1 : num_threads(), [&](int64_t i, int) {
    const int64_t n = i / channels, c = i % channels;
    for (int64_t z = 0; z < e[0]; ++z) {
      layout_kernels<T>().copy_rows(to.at(n, c) + z * to.stride[2], to.stride[3], to.stride[4],
                                    from.at(n, c) + z * from.stride[2], from.stride[3], from.stride[4], e[1], e[2]);
    }
  });
}

// Calls run(workspace, the rest of the limit) with memory for dense planes; false if there is no room for them.
template <class T, class Run>
bool with_planes(const ConvShape& s, int64_t channels, std::size_t workspace_limit, Run run) {
  const std::size_t bytes = array_bytes(s.n * channels, s.pixels(), sizeof(T));
  if (bytes > workspace_limit) return false;
  try {
    const Workspace memory(bytes);
    run(dense_planes(memory.at<T>(0), channels, out_extents(s)), workspace_limit - bytes);
  } catch (const WorkspaceExceeded&) {
    return false;
  }
  return true;
}

// With a stride, filters of one cell see some cells of x alone: copied to planes of their own, these make a pointwise
// convolution of it. Calls run(shape, x, workspace_limit); false if it has no such cells or no room for them.
template <class T, class Run>
bool run_thinned(const ConvShape& s, Tensor<const T> x, std::size_t workspace_limit, Run run) {
  ConvShape thin = s;
  for (Axis& a : thin.axis) {
    if (a.filter > 1 || a.inner_outputs().size() < a.out) return false;
    a = {.in = a.out, .out = a.out};
  }
  if (s.pointwise() || channels_contiguous(x.stride[1], s.c)) return false;
  return with_planes<T>(s, s.c, workspace_limit, [&](const Tensor<T>& cells, std::size_t limit) {
    for (std::size_t i = 0; i < 3; ++i) {
      x.data += s.axis[i].input(0, 0) * x.stride[i + 2];
      x.stride[i + 2] *= s.axis[i].stride;
    }
    copy_planes<T>(s, s.c, out_extents(s), x, cells);
    run(thin, Tensor<const T>{cells.data, cells.stride}, limit);
  });
}

template <class T>
Lattice pixel_lattice(const ConvShape& s, const Tensor<T>& y) {
  return {{s.n, s.axis[0].out, s.axis[1].out, s.axis[2].out}, {y.stride[0], y.stride[2], y.stride[3], y.stride[4]}};
}

// From one pixel of the batch to the next, if they lie so.
template <class T>
std::optional<int64_t> pixel_step(const ConvShape& s, const Tensor<T>& t, const Extents& e) {
  return joined_stride({{e[2], t.stride[4]}, {e[1], t.stride[3]}, {e[0], t.stride[2]}, {s.n, t.stride[0]}});
}

// One group's convolution: w's rows are its filters.
template <class T>
void correlate(ConvShape s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
               std::size_t workspace_limit) {
  const auto run = [&](const ConvShape& thin, const Tensor<const T>& cells, std::size_t limit) {
    correlate(thin, cells, w, bias, relu, y, limit);
  };
  join_plane(s, x, y);
  const bool pixels_in_rows = channels_contiguous(x.stride[1], s.c) && s.taps() == 1;
  const bool in_rows = few_pixels(s) && !pixels_in_rows && Filters<T>(s, w, false).in_place({0, s.k}).data != nullptr;
  const bool channels_last_x = channels_contiguous(x.stride[1], s.c) && !in_rows;
  const bool channels_last_y = channels_contiguous(y.stride[1], s.k) && s.axis[2].out > 1 && !in_rows;
  const Filters<T> filters(s, w, channels_last_x);
  if (!in_rows && pointwise::serves(s, x, y)) return pointwise::correlate(s, x, w, bias, relu, y, workspace_limit);
  if (run_thinned(s, x, workspace_limit, run)) return;
  // An input gradient with a stride of two: every second cell of the planes is computed as planes of their own.
  if (s.pointwise() && y.stride[4] == 2 && !channels_contiguous(x.stride[1], s.c) &&
      with_planes<T>(s, s.k, workspace_limit, [&](const Tensor<T>& cells, std::size_t limit) {
        correlate(s, x, w, bias, relu, cells, limit);
        copy_planes<T>(s, s.k, out_extents(s), {cells.data, cells.stride}, y);
      })) {
    return;
  }
  const PlanePatches<T> plane_patches(s, x);
  const PixelPatches<T> pixel_patches(s, x);
  // Pixels of a pointwise convolution, as far apart along every axis of the batch as along a row, are rows of a matrix,
  // which the micro-kernel reads where they lie.
  const auto x_step = s.pointwise() ? pixel_step(s, x, in_extents(s)) : std::optional<int64_t>{};
  const MatrixOperand<T> pixel_rows(x.data, x_step.value_or(0), 1);
  const Operand<T>& patches = !channels_last_x ? static_cast<const Operand<T>&>(plane_patches)
                              : x_step         ? static_cast<const Operand<T>&>(pixel_rows)
                                               : pixel_patches;

  Product<T> product;
  product.m = s.k;
  product.n = s.n * s.pixels();
  product.k = s.c * s.taps();
  product.left = &filters;
  product.right = &patches;
  (in_rows ? product.share_right : product.share_left) = true;
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
    // Each task packs some filters for all of a few pixels, or they would all go through the last-level cache.
    const int64_t filter_bytes = product.n * product.k * static_cast<int64_t>(sizeof(T));
    if (pixels_in_rows && product.m < product.n && filter_bytes >= kLargeFilters)
      std::swap(product.share_left, product.share_right);
  }
  multiply(product, num_threads(), workspace_limit);
}

// One group's weight gradient.
template <class T>
void reduce(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
            std::size_t workspace_limit) {
  const auto run = [&](const ConvShape& thin, const Tensor<const T>& cells, std::size_t limit) {
    reduce(thin, dy, cells, dw, limit);
  };
  if (run_thinned(s, x, workspace_limit, run)) return;
  if (pointwise::wgrad_serves(s, dy, x)) return pointwise::wgrad(s, dy, x, dw, workspace_limit);
  // With few pixels dw is most of the memory: patches are packed once for all tasks, and in the order of its cells.
  const bool few = 4 * s.n * s.pixels() < s.k;
  const bool channels_last = channels_contiguous(x.stride[1], s.c) && !(few && s.taps() > 1);
  // Pixels that lie as one row are the k of a matrix, which the micro-kernel reads where it lies.
  const auto dy_step = pixel_step(s, dy, out_extents(s)), x_step = pixel_step(s, x, in_extents(s));
  const MatrixOperand<T> gradient_matrix(dy.data, dy.stride[1], dy_step.value_or(0));
  const MatrixOperand<T> pixel_matrix(x.data, 1, x_step.value_or(0));  // of a pointwise convolution
  const PixelRows<T> gradient(s, dy), pointwise_rows(s, x);
  const PlanePatchRows<T> plane_rows(s, x, few ? s.n * s.pixels() : gemm_kernels<T>().k_block);
  const PixelPatchRows<T> pixel_rows(s, x);

  Product<T> product;
  product.m = s.k;
  product.n = s.c * s.taps();
  product.k = s.n * s.pixels();
  product.left = dy_step ? static_cast<const Operand<T>*>(&gradient_matrix) : &gradient;
  product.right = !channels_last && s.pointwise() ? static_cast<const Operand<T>*>(&pointwise_rows)
                  : !channels_last                ? static_cast<const Operand<T>*>(&plane_rows)
                  : s.pointwise() && x_step       ? static_cast<const Operand<T>*>(&pixel_matrix)
                                                  : &pixel_rows;
  product.share_right = few;
  product.result = dw.data;
  product.rows = Lattice::line(s.k, dw.stride[0]);
  const auto [t, r, f] = filter_extents(s);
  if (channels_last) {
    product.cols = {{t, r, f, s.c}, {dw.stride[2], dw.stride[3], dw.stride[4], dw.stride[1]}};
  } else {
    product.cols = {{s.c, t, r, f}, {dw.stride[1], dw.stride[2], dw.stride[3], dw.stride[4]}};
  }
  multiply(product, num_threads(), workspace_limit);
}

}  // namespace

bool few_pixels(const ConvShape& s) {
  return s.n * s.pixels() <=
         std::min(kFewPixels, static_cast<int64_t>(kPixelsPerFilter * static_cast<double>(s.group_k())));
}

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  for_each_group(s, x, w, y, [&](const ConvShape& group, const auto& xg, const auto& wg, const auto& yg, int64_t k) {
    correlate(group, xg, wg, channels_from(bias, k), relu, yg, workspace_limit);
  });
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit) {
  for_each_adjoint_group(s, dy, w, bias, relu, dx,
                         [&](const ConvShape& group, const auto& dyg, const auto& wg, const auto& bias_g,
                             const auto& dxg) { correlate(group, dyg, wg, bias_g, relu, dxg, workspace_limit); });
}

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  for_each_group(s, x, dw, dy, [&](const ConvShape& group, const auto& xg, const auto& dwg, const auto& dyg, int64_t) {
    reduce(group, dyg, xg, dwg, workspace_limit);
  });
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
