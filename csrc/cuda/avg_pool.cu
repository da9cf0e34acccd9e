// Average and sum pooling and their gradient. Both gather: a thread adds the cells of a window, or the windows over a
// cell, in their order.
#include "cuda/runtime/window.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct AvgPool {
  PoolShape shape;
  Divisor divisor;
  int channels, extent[3];  // of the result
  int64_t cells;
  Tensor<const T> from;
  Tensor<T> to;
};

// What the sum of the window at an output is divided by.
template <class T>
__device__ __forceinline__ Sum<T> divisor_of(const AvgPool<T>& p, int64_t z, int64_t row, int64_t q) {
  if (p.divisor.fixed != 0) return static_cast<Sum<T>>(p.divisor.fixed);
  const bool padded = p.divisor.count_padding;
  const int64_t size = p.shape.axis[0].window_size(z, padded) * p.shape.axis[1].window_size(row, padded) *
                       p.shape.axis[2].window_size(q, padded);
  return static_cast<Sum<T>>(size > 0 ? size : 1);
}

// Calls visit(d, h, w) for all of a box.
template <class Visit>
__device__ __forceinline__ void for_each_of(const Range (&box)[3], Visit visit) {
  for (int64_t d = box[0].begin; d < box[0].end; ++d) {
    for (int64_t h = box[1].begin; h < box[1].end; ++h) {
      for (int64_t w = box[2].begin; w < box[2].end; ++w) visit(d, h, w);
    }
  }
}

template <class T>
__device__ __forceinline__ Sum<T> value_at(const Tensor<const T>& t, const Cell& cell, int64_t d, int64_t h,
                                           int64_t w) {
  return Sum<T>(t.at(cell.n, cell.c)[d * t.stride[2] + h * t.stride[3] + w * t.stride[4]]);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) avg_pool_kernel(const __grid_constant__ AvgPool<T> p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.cells; i += step) {
    const Cell y = Cell::of(i, p.channels, p.extent, p.to.stride[1] == 1);
    const Range window[3] = {p.shape.axis[0].cells(y.at[0]), p.shape.axis[1].cells(y.at[1]),
                             p.shape.axis[2].cells(y.at[2])};
    Sum<T> sum = 0;
    for_each_of(window, [&](int64_t d, int64_t h, int64_t w) { sum += value_at(p.from, y, d, h, w); });
    *y.in(p.to) = T(sum / divisor_of(p, y.at[0], y.at[1], y.at[2]));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) avg_pool_grad_kernel(const __grid_constant__ AvgPool<T> p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.cells; i += step) {
    const Cell x = Cell::of(i, p.channels, p.extent, p.to.stride[1] == 1);
    const Range windows[3] = {p.shape.axis[0].windows_over(x.at[0]), p.shape.axis[1].windows_over(x.at[1]),
                              p.shape.axis[2].windows_over(x.at[2])};
    Sum<T> sum = 0;
    for_each_of(windows, [&](int64_t z, int64_t row, int64_t q) {
      sum += value_at(p.from, x, z, row, q) / divisor_of(p, z, row, q);
    });
    *x.in(p.to) = T(sum);
  }
}

template <class T>
void run(void (*kernel)(AvgPool<T>), const PoolShape& s, Divisor divisor, bool backward, const Tensor<const T>& from,
         const Tensor<T>& to) {
  AvgPool<T> p{};
  p.shape = s;
  p.divisor = divisor;
  p.channels = narrow(s.c);
  for (std::size_t axis = 0; axis < 3; ++axis) p.extent[axis] = narrow(backward ? s.axis[axis].in : s.axis[axis].out);
  p.cells = s.n * s.c * (backward ? s.cells() : s.pixels());
  p.from = from;
  p.to = to;
  launch(kernel, grid_for(ceil_div(p.cells, kThreads)), kThreads, 0, p);
}

}  // namespace

template <class T>
void avg_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Divisor divisor) {
  run<T>(avg_pool_kernel<T>, s, divisor, false, x, y);
}

template <class T>
void avg_pool_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<T> dx, Divisor divisor) {
  run<T>(avg_pool_grad_kernel<T>, s, divisor, true, dy, dx);
}

#define FASTCONV_INSTANTIATE(T)                                                        \
  template void avg_pool_fprop(const PoolShape&, Tensor<const T>, Tensor<T>, Divisor); \
  template void avg_pool_dgrad(const PoolShape&, Tensor<const T>, Tensor<T>, Divisor);
FASTCONV_INSTANTIATE(Float16)
FASTCONV_INSTANTIATE(BFloat16)
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cuda
