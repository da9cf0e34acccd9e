// The gradients of biases.
#include "cuda/runtime/channel.cuh"

namespace fastconv::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kChannelThreads, 1)
    channel_sum_kernel(const __grid_constant__ Channels channels, Tensor<const T> x, Vector<T> sums) {
  auto& shared = shared_memory<BlockSums>();
  for (int first = channels.first_channel(); first < channels.count; first += channels.channel_step()) {
    const int lane = static_cast<int>(threadIdx.x) % channels.lanes, channel = first + lane;
    double sum = 0;
    channels.for_each(channel, [&](const Cell& cell) { sum += static_cast<double>(*cell.in(x)); });
    sum = channel_sum(shared, sum, channels.lanes);
    if (threadIdx.x == static_cast<unsigned>(lane) && channel < channels.count)
      sums[channel] = T(static_cast<Sum<T>>(sum));
  }
}

}  // namespace

template <class T>
void conv_bgrad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Vector<T> db) {
  const Channels channels = Channels::of(shape, dy.stride[1] == 1);
  launch(channel_sum_kernel<T>, channels.blocks(), kChannelThreads, sizeof(BlockSums), channels, dy, db);
}

template <class T>
void column_sum(Matrix<const T> a, Vector<T> sums) {
  const Tensor<const T> x{a.data, {a.row_stride, a.col_stride, 0, 0, 0}};
  conv_bgrad<T>({a.rows, a.cols, 1, 1, 1}, x, sums);
}

template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const Float16>, Vector<Float16>);
template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const BFloat16>, Vector<BFloat16>);
template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const float>, Vector<float>);
template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const double>, Vector<double>);
template void column_sum(Matrix<const Float16>, Vector<Float16>);
template void column_sum(Matrix<const BFloat16>, Vector<BFloat16>);
template void column_sum(Matrix<const float>, Vector<float>);
template void column_sum(Matrix<const double>, Vector<double>);

}  // namespace fastconv::cuda
