// y[n,k,z,p,q] sums w[k,0,t,r,s] x[n,k/(K/groups),...] over the taps. A row of outputs (planes) or all channels of an
// output pixel (channels last) are computed at once, from the taps that do not lie in the padding.
#include "depthwise.hpp"

#include "adjoint.hpp"
#include "isa.hpp"
#include "thread_pool.hpp"
#include "windows.hpp"
#include "workspace.hpp"

namespace fastconv::cpu::depthwise {
namespace {

constexpr double kSerialFlops = 1e5;  // below this, waking a thread costs more than it saves

template <class T>
const DepthwiseKernels<T>& kernel() {
  if constexpr (sizeof(T) == 4) {
    return kernels().depthwise32;
  } else {
    return kernels().depthwise64;
  }
}

int threads_for(const ConvShape& s) { return s.flops() < kSerialFlops ? 1 : num_threads(); }

template <class T>
void planes(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const std::size_t weight_bytes = array_bytes(s.taps(), 1, sizeof(T));
  const std::size_t own = 2 * weight_bytes + array_bytes(s.taps(), 1, sizeof(RowTap));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const Windows windows(s.axis, x.stride);
  parallel_for(s.n * s.k, threads, [&](int64_t plane, int slot) {
    const int64_t n = plane / s.k, k = plane % s.k;
    const std::size_t scratch = static_cast<std::size_t>(slot) * own;
    T *weights = memory.at<T>(scratch), *some_weights = memory.at<T>(scratch + weight_bytes);
    auto* some_taps = memory.at<RowTap>(scratch + 2 * weight_bytes);
    for_each_cell(w, k, 0, filter_extents(s), {0, s.taps()}, [&](const T& cell, int64_t tap) { weights[tap] = cell; });
    const T b = bias.data != nullptr ? bias[k] : T(0);
    for (int64_t row = 0; row < depth.out * height.out; ++row) {
      const int64_t z = row / height.out, p = row % height.out;
      const T* src = x.at(n, k / s.group_k()) + windows.origin(z, p, 0);
      T* out = y.at(n, k) + z * y.stride[2] + p * y.stride[3];
      const int64_t step = width.stride * x.stride[4];
      if (windows.whole_row(z, p)) {
        kernel<T>().row(out, y.stride[4], width.out, src, windows.row_taps(), weights, windows.count(), step, b, relu);
        continue;
      }
      int64_t count = 0;
      windows.for_each_row_tap(z, p, [&](int32_t number) {
        some_weights[count] = weights[number];
        some_taps[count++] = windows.row_taps()[number];
      });
      kernel<T>().row(out, y.stride[4], width.out, src, some_taps, some_weights, count, step, b, relu);
    }
  });
}

template <class T>
void pixels(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const std::size_t filters = array_bytes(s.taps() + 1, s.k, sizeof(T));  // w as [tap][K], then the bias
  const std::size_t own = array_bytes(2 * s.taps(), 1, sizeof(const T*));
  const int threads = threads_within(workspace_limit, filters, own, threads_for(s), "direct");
  const Workspace memory(filters + static_cast<std::size_t>(threads) * own);
  T* packed = memory.at<T>(0);
  T* packed_bias = bias.data != nullptr ? packed + s.taps() * s.k : nullptr;
  for (int64_t k = 0; k < s.k; ++k) {
    for_each_cell(w, k, 0, filter_extents(s), {0, s.taps()},
                  [&](const T& cell, int64_t tap) { packed[tap * s.k + k] = cell; });
    if (packed_bias != nullptr) packed_bias[k] = bias[k];
  }
  const Windows windows(s.axis, x.stride);
  parallel_for(s.n * depth.out * height.out, threads, [&](int64_t row, int slot) {
    const int64_t p = row % height.out, z = row / height.out % depth.out, n = row / height.out / depth.out;
    auto* src = memory.at<const T*>(filters + static_cast<std::size_t>(slot) * own);
    const T** weights = src + s.taps();
    for (int64_t q = 0; q < width.out; ++q) {
      const T* origin = x.at(n, 0) + windows.origin(z, p, q);
      int64_t count = 0;
      windows.for_each_pixel_tap(z, p, q, [&](int32_t number) {
        src[count] = origin + windows.row_taps()[number].offset;
        weights[count++] = packed + number * s.k;
      });
      kernel<T>().pixel(y.at(n, 0) + z * y.stride[2] + p * y.stride[3] + q * y.stride[4], s.k, src, weights, count,
                        packed_bias, relu);
    }
  });
}

}  // namespace

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  if (s.group_k() == 1 && x.stride[1] == 1 && y.stride[1] == 1) {
    return pixels(s, x, w, bias, relu, y, workspace_limit);
  }
  planes(s, x, w, bias, relu, y, workspace_limit);
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, std::size_t workspace_limit) {
  for_each_phase(s, w, dx, [&](const ConvShape& phase, Tensor<const T> taps, Tensor<T> inputs) {
    fprop<T>(phase, dy, taps, {}, false, inputs, workspace_limit);
  });
}

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
