// Sums over all axes but one, in float64 whatever the type: the gradients of biases.
#include "window.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 32;  // columns that a block sums where they lie side by side

// A tensor [N,C,D,H,W] whose channels are summed. `image` is {d, h, w}.
template <class T>
struct ChannelSums {
  Tensor<const T> x;
  int64_t pixels;  // of all images
  int channels, image[3];
  int lanes;  // channels of a block: neighbouring threads read neighbouring channels, or pixels of one
  Vector<T> sums;
};

struct BlockSums {
  double value[kThreads];
};

// The sum of one value a thread, in the first `lanes` threads: pairs half the block apart, then a quarter, and so on.
// The order is always the same.
__device__ double block_sum(BlockSums& shared, double value, int lanes) {
  const int thread = static_cast<int>(threadIdx.x);
  shared.value[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half >= lanes; half /= 2) {
    if (thread < half) shared.value[thread] += shared.value[thread + half];
    __syncthreads();
  }
  const double sum = shared.value[thread];
  __syncthreads();  // before the next sum is put there
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) channel_sum_kernel(const __grid_constant__ ChannelSums<T> p) {
  auto& shared = shared_memory<BlockSums>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * p.lanes; first < p.channels;
       first += static_cast<int64_t>(gridDim.x) * p.lanes) {
    const int64_t channel = first + thread % p.lanes;
    double sum = 0;
    for (int64_t pixel = thread / p.lanes; pixel < p.pixels && channel < p.channels; pixel += kThreads / p.lanes) {
      Cell cell = Cell::of(pixel, 1, p.image, false);
      cell.c = static_cast<int>(channel);
      sum += static_cast<double>(*cell.in(p.x));
    }
    sum = block_sum(shared, sum, p.lanes);
    if (thread < p.lanes && channel < p.channels) p.sums[channel] = static_cast<T>(sum);
  }
}

}  // namespace

template <class T>
void conv_bgrad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Vector<T> db) {
  const int lanes = dy.stride[1] == 1 ? kLanes : 1;
  const ChannelSums<T> p{.x = dy,
                         .pixels = shape[0] * shape[2] * shape[3] * shape[4],
                         .channels = narrow(shape[1]),
                         .image = {narrow(shape[2]), narrow(shape[3]), narrow(shape[4])},
                         .lanes = lanes,
                         .sums = db};
  launch(channel_sum_kernel<T>, grid_for(ceil_div(p.channels, p.lanes)), kThreads, sizeof(BlockSums), p);
}

template <class T>
void column_sum(Matrix<const T> a, Vector<T> sums) {
  const Tensor<const T> x{a.data, {a.row_stride, a.col_stride, 0, 0, 0}};
  conv_bgrad<T>({a.rows, a.cols, 1, 1, 1}, x, sums);
}

template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const float>, Vector<float>);
template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const double>, Vector<double>);
template void column_sum(Matrix<const float>, Vector<float>);
template void column_sum(Matrix<const double>, Vector<double>);

}  // namespace fastconv::cuda
