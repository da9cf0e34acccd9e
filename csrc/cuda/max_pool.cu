// Max-pooling and its gradient.
#include <limits>

#include "cuda/runtime/window.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int64_t first_cell() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ int64_t cell_step() { return static_cast<int64_t>(gridDim.x) * kThreads; }

template <class T>
struct MaxPool {
  DeviceAxes axes;
  int channels, extent[3];
  int64_t cells;  // of y
  Tensor<const T> x;
  Tensor<T> y;
  Tensor<int64_t> indices;  // both may be absent
  Tensor<uint8_t> offsets;
  bool rectified;
};

// One thread an output: the first NaN of its window, or the first of the largest cells.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) max_pool_kernel(const __grid_constant__ MaxPool<T> p) {
  const DeviceAxis &depth = p.axes[0], &height = p.axes[1], &width = p.axes[2];
  for (int64_t i = first_cell(); i < p.cells; i += cell_step()) {
    const Cell y = Cell::of(i, p.channels, p.extent, p.y.stride[1] == 1);
    const int last_t = depth.end_tap(y.at[0]), last_r = height.end_tap(y.at[1]), last_s = width.end_tap(y.at[2]);
    using Limits = std::numeric_limits<Sum<T>>;
    Sum<T> best = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
    int64_t index = -1;
    int number = kNoTap;
    for (int t = depth.first_tap(y.at[0]); t < last_t; ++t) {
      for (int r = height.first_tap(y.at[1]); r < last_r; ++r) {
        for (int s = width.first_tap(y.at[2]); s < last_s; ++s) {
          const Cell x{y.n, y.c, {depth.input(y.at[0], t), height.input(y.at[1], r), width.input(y.at[2], s)}};
          const Sum<T> value = Sum<T>(*x.in(p.x));
          const bool first_nan = value != value && best == best;
          if (index >= 0 && !(value > best) && !first_nan) continue;
          best = value;
          index = (static_cast<int64_t>(x.at[0]) * height.in + x.at[1]) * width.in + x.at[2];
          number = (t * height.filter + r) * width.filter + s;
        }
      }
    }
    *y.in(p.y) = T(best);
    if (p.indices.data != nullptr) *y.in(p.indices) = index;
    if (p.offsets.data != nullptr)
      *y.in(p.offsets) = static_cast<uint8_t>(p.rectified && !(best > 0) ? kNoTap : number);
  }
}

// The gradient from the numbers of taps gathers: the windows over a cell are known, so no table is needed.
template <class T>
struct MaxPoolOffsetsGradient {
  DeviceAxes axes;
  int channels, extent[3];
  int64_t cells;  // of dx
  Tensor<const T> dy;
  Tensor<const uint8_t> offsets;
  Tensor<T> dx;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    max_pool_offsets_grad_kernel(const __grid_constant__ MaxPoolOffsetsGradient<T> p) {
  const DeviceAxis &depth = p.axes[0], &height = p.axes[1], &width = p.axes[2];
  for (int64_t i = first_cell(); i < p.cells; i += cell_step()) {
    const Cell x = Cell::of(i, p.channels, p.extent, p.dx.stride[1] == 1);
    Sum<T> sum = 0;
    for (int t = depth.filter - 1; t >= 0; --t) {  // from the last tap on, which is in the order of the outputs
      const int z = depth.output(x.at[0], t);
      for (int r = height.filter - 1; z >= 0 && r >= 0; --r) {
        const int row = height.output(x.at[1], r);
        for (int s = width.filter - 1; row >= 0 && s >= 0; --s) {
          const Cell y{x.n, x.c, {z, row, width.output(x.at[2], s)}};
          if (y.at[2] < 0 || *y.in(p.offsets) != (t * height.filter + r) * width.filter + s) continue;
          sum += Sum<T>(*y.in(p.dy));
        }
      }
    }
    *x.in(p.dx) = T(sum);
  }
}

// The gradient gathers: a thread sums what its cell of dx receives, in the order of the outputs, with no atomic
// addition. The geometry of the windows is not known here, only the indices. So a first pass notes, for each plane, row
// and column of x, the first and the last plane, row or column of outputs that chose a cell in it; behind a pool these
// ranges are as wide as windows overlap.
struct Reach {
  int* first[3];  // [axis][coordinate in x]
  int* last[3];
};

template <class T>
struct MaxPoolGradient {
  int channels, in[3], out[3];
  int64_t plane;            // cells of a plane of x
  int64_t inputs, outputs;  // cells of dx and dy
  Tensor<const T> dy;
  Tensor<const int64_t> indices;
  Tensor<T> dx;
  Reach reach;
  int* fault;  // set where an index lies outside [-1, plane)
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1) clear_reach_kernel(const __grid_constant__ MaxPoolGradient<T> p) {
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    for (int64_t i = first_cell(); i < p.in[axis]; i += cell_step()) {
      p.reach.first[axis][i] = std::numeric_limits<int>::max();
      p.reach.last[axis][i] = -1;
    }
  }
  if (first_cell() == 0) *p.fault = 0;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) find_reach_kernel(const __grid_constant__ MaxPoolGradient<T> p) {
  for (int64_t i = first_cell(); i < p.outputs; i += cell_step()) {
    const Cell y = Cell::of(i, p.channels, p.out, p.indices.stride[1] == 1);
    const int64_t index = *y.in(p.indices);
    if (index < -1 || index >= p.plane) atomicMax(p.fault, 1);
    if (index < 0 || index >= p.plane) continue;
    const Cell x = Cell::of(index, 1, p.in, false);
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      int* const first = p.reach.first[axis] + x.at[axis];
      int* const last = p.reach.last[axis] + x.at[axis];
      // Usually the range is known already; a stale value read here only costs an atomic too many.
      if (relaxed_load(first) > y.at[axis]) atomicMin(first, y.at[axis]);
      if (relaxed_load(last) < y.at[axis]) atomicMax(last, y.at[axis]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) max_pool_grad_kernel(const __grid_constant__ MaxPoolGradient<T> p) {
  for (int64_t i = first_cell(); i < p.inputs; i += cell_step()) {
    const Cell x = Cell::of(i, p.channels, p.in, p.dx.stride[1] == 1);
    const int64_t index = (static_cast<int64_t>(x.at[0]) * p.in[1] + x.at[1]) * p.in[2] + x.at[2];
    const int last_z = p.reach.last[0][x.at[0]], last_p = p.reach.last[1][x.at[1]], last_q = p.reach.last[2][x.at[2]];
    Sum<T> sum = 0;
    for (int z = p.reach.first[0][x.at[0]]; z <= last_z; ++z) {
      for (int row = p.reach.first[1][x.at[1]]; row <= last_p; ++row) {
        for (int q = p.reach.first[2][x.at[2]]; q <= last_q; ++q) {
          const Cell y{x.n, x.c, {z, row, q}};
          if (*y.in(p.indices) == index) sum += Sum<T>(*y.in(p.dy));
        }
      }
    }
    *x.in(p.dx) = T(sum);
  }
}

template <class T>
void max_pool(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<int64_t> indices, Tensor<uint8_t> offsets,
              bool rectified) {
  check_extents(s.axis);
  MaxPool<T> p{};
  p.axes = device_axes(s.axis);
  for (std::size_t axis = 0; axis < 3; ++axis) p.extent[axis] = p.axes[axis].out;
  p.channels = narrow(s.c);
  p.cells = s.n * s.c * s.pixels();
  p.x = x;
  p.y = y;
  p.indices = indices;
  p.offsets = offsets;
  p.rectified = rectified;
  launch(max_pool_kernel<T>, grid_for(ceil_div(p.cells, kThreads)), kThreads, 0, p);
}

}  // namespace

template <class T>
void max_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<int64_t> indices) {
  max_pool<T>(s, x, y, indices, {}, false);
}
template <class T>
void max_pool_offsets_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<uint8_t> offsets,
                            bool rectified) {
  max_pool<T>(s, x, y, {}, offsets, rectified);
}

template <class T>
void max_pool_offsets_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<const uint8_t> offsets, Tensor<T> dx) {
  check_extents(s.axis);
  MaxPoolOffsetsGradient<T> p{};
  p.axes = device_axes(s.axis);
  for (std::size_t axis = 0; axis < 3; ++axis) p.extent[axis] = p.axes[axis].in;
  p.channels = narrow(s.c);
  p.cells = s.n * s.c * s.cells();
  p.dy = dy;
  p.offsets = offsets;
  p.dx = dx;
  launch(max_pool_offsets_grad_kernel<T>, grid_for(ceil_div(p.cells, kThreads)), kThreads, 0, p);
}

template <class T>
void max_pool_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<const int64_t> indices, Tensor<T> dx, bool) {
  MaxPoolGradient<T> p{};
  int64_t coordinates = 0;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    p.in[axis] = narrow(s.axis[axis].in);
    p.out[axis] = narrow(s.axis[axis].out);
    coordinates += p.in[axis];
  }
  p.channels = narrow(s.c);
  p.plane = s.cells();
  p.inputs = s.n * s.c * s.cells();
  p.outputs = s.n * s.c * s.pixels();
  p.dy = dy;
  p.indices = indices;
  p.dx = dx;
  int* table = allocate<int>(2 * coordinates + 1);
  p.fault = table++;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    p.reach.first[axis] = table;
    p.reach.last[axis] = table + p.in[axis];
    table += 2 * p.in[axis];
  }
  launch(clear_reach_kernel<T>, grid_for(ceil_div(coordinates, kThreads)), kThreads, 0, p);
  launch(find_reach_kernel<T>, grid_for(ceil_div(p.outputs, kThreads)), kThreads, 0, p);
  if (read_back(p.fault) != 0) {
    throw std::invalid_argument("indices must lie in [-1, " + std::to_string(p.plane) +
                                "), the cells of one input plane, but not all of them do");
  }
  launch(max_pool_grad_kernel<T>, grid_for(ceil_div(p.inputs, kThreads)), kThreads, 0, p);
}

#define FASTCONV_INSTANTIATE(T)                                                                              \
  template void max_pool_offsets_fprop(const PoolShape&, Tensor<const T>, Tensor<T>, Tensor<uint8_t>, bool); \
  template void max_pool_offsets_dgrad(const PoolShape&, Tensor<const T>, Tensor<const uint8_t>, Tensor<T>); \
  template void max_pool_fprop(const PoolShape&, Tensor<const T>, Tensor<T>, Tensor<int64_t>);               \
  template void max_pool_dgrad(const PoolShape&, Tensor<const T>, Tensor<const int64_t>, Tensor<T>, bool);
FASTCONV_INSTANTIATE(Float16)
FASTCONV_INSTANTIATE(BFloat16)
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE
template void max_pool_fprop(const PoolShape&, Tensor<const int8_t>, Tensor<int8_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const uint8_t>, Tensor<uint8_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int32_t>, Tensor<int32_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int64_t>, Tensor<int64_t>, Tensor<int64_t>);

}  // namespace fastconv::cuda
