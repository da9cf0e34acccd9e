// y[n,k,z,p,q] sums w[k,0,t,r,s] x[n,k/(K/groups),...] over the taps. A row of outputs (planes) or all channels of an
// output pixel (channels last) are computed at once, from the taps that do not lie in the padding.
#include "depthwise.hpp"

#include "adjoint.hpp"
#include "isa.hpp"
#include "thread_pool.hpp"
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

// Calls visit(tap number, d, h, s) for the taps of output row (z, p) whose d and h are inside.
template <class Visit>
void for_each_row_tap(const ConvShape& shape, int64_t z, int64_t p, Visit visit) {
  const auto& [depth, height, width] = shape.axis;
  for (int64_t t = 0; t < depth.filter; ++t) {
    const int64_t d = depth.input(z, t);
    if (!depth.inside(d)) continue;
    for (int64_t r = 0; r < height.filter; ++r) {
      const int64_t h = height.input(p, r);
      if (!height.inside(h)) continue;
      for (int64_t s = 0; s < width.filter; ++s) visit((t * height.filter + r) * width.filter + s, d, h, s);
    }
  }
}

int threads_for(const ConvShape& s) { return s.flops() < kSerialFlops ? 1 : num_threads(); }

template <class T>
void planes(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const std::size_t row_taps = array_bytes(s.taps(), 1, sizeof(RowTap<T>));
  const std::size_t own = row_taps + array_bytes(s.taps(), 1, sizeof(T));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const std::vector<Range> real_outputs = tap_outputs(width);
  parallel_for(s.n * s.k, threads, [&](int64_t plane, int slot) {
    const int64_t n = plane / s.k, k = plane % s.k;
    auto* taps = memory.at<RowTap<T>>(static_cast<std::size_t>(slot) * own);
    T* weights = memory.at<T>(static_cast<std::size_t>(slot) * own + row_taps);
    const T* channel = x.at(n, k / s.group_k());
    for (int64_t row = 0; row < depth.out * height.out; ++row) {
      const int64_t z = row / height.out, p = row % height.out;
      int64_t count = 0;
      for_each_row_tap(s, z, p, [&](int64_t tap, int64_t d, int64_t h, int64_t f) {
        const int64_t r = tap / width.filter % height.filter, t = tap / width.filter / height.filter;
        const Range real = real_outputs[static_cast<std::size_t>(f)];
        if (real.size() == 0) return;
        const T* src = channel + d * x.stride[2] + h * x.stride[3] + width.input(0, f) * x.stride[4];
        weights[count] = *(w.at(k, 0) + t * w.stride[2] + r * w.stride[3] + f * w.stride[4]);
        taps[count++] = {src, real.begin, real.end};
      });
      kernel<T>().row(y.at(n, k) + z * y.stride[2] + p * y.stride[3], y.stride[4], width.out, taps, weights, count,
                      width.stride * x.stride[4], bias.data != nullptr ? bias[k] : T(0), relu);
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
  parallel_for(s.n * depth.out * height.out, threads, [&](int64_t row, int slot) {
    const int64_t p = row % height.out, z = row / height.out % depth.out, n = row / height.out / depth.out;
    auto* src = memory.at<const T*>(filters + static_cast<std::size_t>(slot) * own);
    const T** weights = src + s.taps();
    for (int64_t q = 0; q < width.out; ++q) {
      int64_t count = 0;
      for_each_row_tap(s, z, p, [&](int64_t tap, int64_t d, int64_t h, int64_t f) {
        const int64_t i = width.input(q, f);
        if (!width.inside(i)) return;
        src[count] = x.at(n, 0) + d * x.stride[2] + h * x.stride[3] + i * x.stride[4];
        weights[count++] = packed + tap * s.k;
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
  if (s.group_k() == 1 && x.stride[1] == 1 && y.stride[1] == 1) return pixels(s, x, w, bias, relu, y, workspace_limit);
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
