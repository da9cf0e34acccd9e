// Batch normalisation of x[N,C,D,H,W] over all axes but C (Ioffe and Szegedy, arXiv 1502.03167): a block reduces a
// channel, or a few that lie side by side, and then makes the elementwise pass over it.
#include "cuda/runtime/channel.cuh"

namespace fastconv::cuda {
namespace {

// In two passes: the variance is that of x - mean, which does not cancel.
template <class T>
__global__ void __launch_bounds__(kChannelThreads, 1)
    moments_kernel(const __grid_constant__ Channels channels, Tensor<const T> x, T* mean, T* variance) {
  auto& shared = shared_memory<BlockSums>();
  const auto count = static_cast<double>(channels.pixels);
  for (int first = channels.first_channel(); first < channels.count; first += channels.channel_step()) {
    const int lane = static_cast<int>(threadIdx.x) % channels.lanes, channel = first + lane;
    double sum = 0, squares = 0;
    channels.for_each(channel, [&](const Cell& cell) { sum += static_cast<double>(*cell.in(x)); });
    const double centre = channel_sum(shared, sum, channels.lanes) / count;
    channels.for_each(channel, [&](const Cell& cell) {
      const double apart = static_cast<double>(*cell.in(x)) - centre;
      squares += apart * apart;
    });
    squares = channel_sum(shared, squares, channels.lanes);
    if (threadIdx.x != static_cast<unsigned>(lane) || channel >= channels.count) continue;
    mean[channel] = static_cast<T>(centre);
    variance[channel] = static_cast<T>(squares / count);
  }
}

template <class T>
struct Normalise {
  int channels, extent[3];
  int64_t cells;
  Tensor<const T> x;
  const T *mean, *scale, *bias;
  bool relu;
  Tensor<T> y;
};

template <class T>
__global__ void __launch_bounds__(kChannelThreads, 1) normalise_kernel(const __grid_constant__ Normalise<T> p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kChannelThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kChannelThreads + threadIdx.x; i < p.cells; i += step) {
    const Cell cell = Cell::of(i, p.channels, p.extent, p.y.stride[1] == 1);
    const T y = (*cell.in(p.x) - p.mean[cell.c]) * p.scale[cell.c] + p.bias[cell.c];
    *cell.in(p.y) = p.relu && y < T(0) ? T(0) : y;
  }
}

template <class T>
struct NormGradient {
  Channels channels;
  Tensor<const T> dy, x;
  const T *mean, *rstd, *weight;
  Tensor<T> dx;
  T *dweight, *dbias;
};

// dbias = sum of dy, dweight = sum of dy xhat, dx = weight rstd (dy - (dbias + xhat dweight) / M), xhat = (x - mean)
// rstd.
template <class T>
__global__ void __launch_bounds__(kChannelThreads, 1) norm_gradient_kernel(const __grid_constant__ NormGradient<T> p) {
  auto& shared = shared_memory<BlockSums>();
  const Channels& channels = p.channels;
  for (int first = channels.first_channel(); first < channels.count; first += channels.channel_step()) {
    const int lane = static_cast<int>(threadIdx.x) % channels.lanes, channel = first + lane;
    const bool exists = channel < channels.count;
    const double mean = exists ? static_cast<double>(p.mean[channel]) : 0;
    const double rstd = exists ? static_cast<double>(p.rstd[channel]) : 0;
    double sum = 0, product = 0;
    channels.for_each(channel, [&](const Cell& cell) {
      const auto dy = static_cast<double>(*cell.in(p.dy));
      sum += dy;
      product += dy * (static_cast<double>(*cell.in(p.x)) - mean);
    });
    sum = channel_sum(shared, sum, channels.lanes);
    product = channel_sum(shared, product, channels.lanes) * rstd;
    if (!exists) continue;
    if (threadIdx.x == static_cast<unsigned>(lane)) {
      p.dbias[channel] = static_cast<T>(sum);
      p.dweight[channel] = static_cast<T>(product);
    }
    const double scale = static_cast<double>(p.weight[channel]) * rstd, count = static_cast<double>(channels.pixels);
    channels.for_each(channel, [&](const Cell& cell) {
      const double normal = (static_cast<double>(*cell.in(p.x)) - mean) * rstd;
      const double dx = scale * (static_cast<double>(*cell.in(p.dy)) - (sum + normal * product) / count);
      *cell.in(p.dx) = static_cast<T>(dx);
    });
  }
}

}  // namespace

template <class T>
void batch_moments(const std::array<int64_t, 5>& shape, Tensor<const T> x, T* mean, T* variance) {
  const Channels channels = Channels::of(shape, x.stride[1] == 1);
  launch(moments_kernel<T>, channels.blocks(), kChannelThreads, sizeof(BlockSums), channels, x, mean, variance);
}

template <class T>
void batch_norm_fprop(const std::array<int64_t, 5>& shape, Tensor<const T> x, const T* mean, const T* scale,
                      const T* bias, Tensor<T> y, bool relu) {
  Normalise<T> p{};
  p.channels = narrow(shape[1]);
  for (std::size_t axis = 0; axis < 3; ++axis) p.extent[axis] = narrow(shape[2 + axis]);
  p.cells = shape[0] * shape[1] * shape[2] * shape[3] * shape[4];
  p.x = x;
  p.mean = mean;
  p.scale = scale;
  p.bias = bias;
  p.relu = relu;
  p.y = y;
  launch(normalise_kernel<T>, grid_for(ceil_div(p.cells, kChannelThreads)), kChannelThreads, 0, p);
}

template <class T>
void batch_norm_grad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Tensor<const T> x, const T* mean,
                     const T* rstd, const T* weight, Tensor<T> dx, T* dweight, T* dbias) {
  const NormGradient<T> p{Channels::of(shape, x.stride[1] == 1), dy, x, mean, rstd, weight, dx, dweight, dbias};
  launch(norm_gradient_kernel<T>, p.channels.blocks(), kChannelThreads, sizeof(BlockSums), p);
}

#define FASTCONV_INSTANTIATE(T)                                                                                      \
  template void batch_moments(const std::array<int64_t, 5>&, Tensor<const T>, T*, T*);                               \
  template void batch_norm_fprop(const std::array<int64_t, 5>&, Tensor<const T>, const T*, const T*, const T*,       \
                                 Tensor<T>, bool);                                                                   \
  template void batch_norm_grad(const std::array<int64_t, 5>&, Tensor<const T>, Tensor<const T>, const T*, const T*, \
                                const T*, Tensor<T>, T*, T*);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cuda
