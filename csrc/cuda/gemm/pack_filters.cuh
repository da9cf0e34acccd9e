// Filters with the channels that a pass sums over innermost, as tensor cores read them:
// [groups][outputs][d][h][w][channels].
#pragma once

#include "chunks.cuh"
#include "cuda/runtime/window.cuh"

namespace fastconv::cuda {

inline constexpr int kPackThreads = 256;

template <class T>
struct PackFilters {
  Filters<T> from;
  T* to;
  int channels, taps[3];
  int64_t group_outputs, cells;
};

template <class T>
__global__ void __launch_bounds__(kPackThreads, 1) pack_filters_kernel(const __grid_constant__ PackFilters<T> p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPackThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x; i < p.cells; i += step) {
    const Cell cell = Cell::of(i, p.channels, p.taps, true);  // cell.n is the filter
    const int64_t group = cell.n / p.group_outputs, output = cell.n % p.group_outputs;
    p.to[i] = p.from.data[group * p.from.group_stride + output * p.from.output_stride + cell.c * p.from.input_stride +
                          cell.at[0] * p.from.tap_stride[kD] + cell.at[1] * p.from.tap_stride[kH] +
                          cell.at[2] * p.from.tap_stride[kW]];
  }
}

// Filters as a copy in the workspace, with the channels that are summed over innermost; as they are, where it is too
// small for that.
template <class T>
Filters<T> with_channels_innermost(const Filters<T>& w, const ConvShape& s, std::size_t& workspace_limit) {
  const int64_t channels = s.group_c(), cells = s.k * channels * s.taps();
  const std::size_t bytes = static_cast<std::size_t>(cells) * sizeof(T);
  if (bytes > workspace_limit) return w;
  workspace_limit -= bytes;
  PackFilters<T> p{};
  p.from = w;
  p.to = allocate<T>(cells);
  for (std::size_t axis = 0; axis < 3; ++axis) p.taps[axis] = narrow(s.axis[axis].filter);
  p.channels = narrow(channels);
  p.group_outputs = s.group_k();
  p.cells = cells;
  launch(pack_filters_kernel<T>, grid_for(ceil_div(cells, kPackThreads)), kPackThreads, 0, p);
  const int64_t row = channels * p.taps[2], plane = row * p.taps[1];
  return {p.to, s.group_k() * plane * p.taps[0], plane * p.taps[0], 1, {channels, row, plane}};
}

// Filters that lie as with_channels_innermost would copy them.
template <class T>
bool packed(const Filters<T>& w, const ConvShape& s) {
  const int64_t row = s.c * s.axis[2].filter, plane = row * s.axis[1].filter;
  const auto lies = [](int64_t stride, int64_t extent, int64_t dense) { return extent == 1 || stride == dense; };
  return w.input_stride == 1 && lies(w.tap_stride[kW], s.axis[2].filter, s.c) &&
         lies(w.tap_stride[kH], s.axis[1].filter, row) && lies(w.output_stride, s.k, plane) &&
         reinterpret_cast<std::uintptr_t>(w.data) % sizeof(Chunk) == 0;
}

}  // namespace fastconv::cuda
