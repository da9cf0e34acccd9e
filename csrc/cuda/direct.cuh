// Convolution by its definition, one thread an output: for groups of so few channels that a tile of a matrix product
// would be nearly empty, above all depthwise. Neighbouring threads compute neighbouring cells in memory, so that reads
// are coalesced; a filter is read by all threads of a warp at once and stays in the first-level cache.
#pragma once

#include "cuda/gemm/operand.cuh"
#include "cuda/runtime/window.cuh"

namespace fastconv::cuda {

inline constexpr int kDirectThreads = 256;
inline constexpr int kDirectWarps = kDirectThreads / kWarpSize;

template <class T>
struct DirectConv {
  DeviceAxes axes;
  int extent[3];  // of y
  int outputs, group_inputs, group_outputs;
  int64_t cells;  // of y
  Tensor<const T> x;
  Filters<T> w;
  Vector<const T> bias;
  bool relu;
  Tensor<T> y;
};

template <class T>
__global__ void __launch_bounds__(kDirectThreads, 1) direct_conv_kernel(const __grid_constant__ DirectConv<T> p) {
  const DeviceAxis &depth = p.axes[0], &height = p.axes[1], &width = p.axes[2];
  const int64_t step = static_cast<int64_t>(gridDim.x) * kDirectThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kDirectThreads + threadIdx.x; i < p.cells; i += step) {
    const Cell y = Cell::of(i, p.outputs, p.extent, p.y.stride[1] == 1);
    const int group = y.c / p.group_outputs;
    const T* const filter = p.w.data + group * p.w.group_stride + y.c % p.group_outputs * p.w.output_stride;
    const T* const image = p.x.at(y.n, static_cast<int64_t>(group) * p.group_inputs);
    const int last_t = depth.end_tap(y.at[0]), last_r = height.end_tap(y.at[1]), last_s = width.end_tap(y.at[2]);
    Sum<T> sum = p.bias.data == nullptr ? Sum<T>(0) : Sum<T>(p.bias[y.c]);
    for (int c = 0; c < p.group_inputs; ++c) {
      for (int t = depth.first_tap(y.at[0]); t < last_t; ++t) {
        for (int r = height.first_tap(y.at[1]); r < last_r; ++r) {
          const T* const row = image + c * p.x.stride[1] + depth.input(y.at[0], t) * p.x.stride[2] +
                               height.input(y.at[1], r) * p.x.stride[3];
          const T* const taps = filter + c * p.w.input_stride + t * p.w.tap_stride[kD] + r * p.w.tap_stride[kH];
          for (int s = width.first_tap(y.at[2]); s < last_s; ++s) {
            sum += Sum<T>(row[width.input(y.at[2], s) * p.x.stride[4]]) * Sum<T>(taps[s * p.w.tap_stride[kW]]);
          }
        }
      }
    }
    *y.in(p.y) = p.relu && sum < Sum<T>(0) ? T(0) : T(sum);
  }
}

template <class T>
void direct_conv(const ConvShape& s, const Tensor<const T>& x, const Filters<T>& w, const Vector<const T>& bias,
                 bool relu, const Tensor<T>& y) {
  DirectConv<T> p{};
  p.axes = device_axes(s.axis);
  for (std::size_t axis = 0; axis < 3; ++axis) p.extent[axis] = p.axes[axis].out;
  p.outputs = static_cast<int>(s.k);
  p.group_inputs = static_cast<int>(s.group_c());
  p.group_outputs = static_cast<int>(s.group_k());
  p.cells = s.n * s.k * s.pixels();
  p.x = x;
  p.w = w;
  p.bias = bias;
  p.relu = relu;
  p.y = y;
  launch(direct_conv_kernel<T>, grid_for(ceil_div(p.cells, kDirectThreads)), kDirectThreads, 0, p);
}

// The sum of one value a lane, in every lane; always in the same order.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
  return value;
}

template <class T>
struct DirectFilterGradient {
  DeviceAxes axes;
  int extent[3];  // of dy
  int taps[3];
  int group_inputs, group_outputs;
  int64_t cells, pixels;  // of dw; of dy over all images
  Tensor<const T> dy, x;
  Tensor<T> dw;
};

// One warp a cell of dw: its lanes share out the pixels.
template <class T>
__global__ void __launch_bounds__(kDirectThreads, 1)
    direct_wgrad_kernel(const __grid_constant__ DirectFilterGradient<T> p) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kDirectThreads + threadIdx.x) / kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kDirectWarps;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t i = warp; i < p.cells; i += warps) {
    const Cell w = Cell::of(i, p.group_inputs, p.taps, false);  // w.n is the filter
    const int filter = static_cast<int>(w.n), channel = filter / p.group_outputs * p.group_inputs + w.c;
    Sum<T> sum = 0;
    for (int64_t pixel = lane; pixel < p.pixels; pixel += kWarpSize) {
      Cell y = Cell::of(pixel, 1, p.extent, false);
      y.c = filter;
      const Cell x{
          y.n,
          channel,
          {p.axes[0].input(y.at[0], w.at[0]), p.axes[1].input(y.at[1], w.at[1]), p.axes[2].input(y.at[2], w.at[2])}};
      if (p.axes[0].inside(x.at[0]) && p.axes[1].inside(x.at[1]) && p.axes[2].inside(x.at[2])) {
        sum += Sum<T>(*y.in(p.dy)) * Sum<T>(*x.in(p.x));
      }
    }
    sum = warp_sum(sum);
    if (lane == 0) *w.in(p.dw) = T(sum);
  }
}

template <class T>
void direct_wgrad(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw) {
  DirectFilterGradient<T> p{};
  p.axes = device_axes(s.axis);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    p.extent[axis] = p.axes[axis].out;
    p.taps[axis] = p.axes[axis].filter;
  }
  p.group_inputs = static_cast<int>(s.group_c());
  p.group_outputs = static_cast<int>(s.group_k());
  p.cells = s.k * s.group_c() * s.taps();
  p.pixels = s.n * s.pixels();
  p.dy = dy;
  p.x = x;
  p.dw = dw;
  launch(direct_wgrad_kernel<T>, grid_for(ceil_div(p.cells, kDirectWarps)), kDirectThreads, 0, p);
}

}  // namespace fastconv::cuda
