// Sums over all axes but the channels, in float64 whatever the type. A block takes one channel, or a few side by side
// where channels lie densest; its threads share out the pixels, and the order of the additions is always the same.
#pragma once

#include "window.cuh"

namespace fastconv::cuda {

inline constexpr int kChannelThreads = 256;
inline constexpr int kDenseChannels = 8;  // of a block: 32 bytes, what memory is read in

// The pixels of a tensor [N,C,D,H,W], and how the threads of a block walk them.
struct Channels {
  int count, image[3];
  int lanes;       // channels of a block; neighbouring threads read neighbouring channels, or pixels of one channel
  int64_t pixels;  // of a channel, over all images

  static Channels of(const std::array<int64_t, 5>& shape, bool dense) {
    return {narrow(shape[1]),
            {narrow(shape[2]), narrow(shape[3]), narrow(shape[4])},
            dense ? kDenseChannels : 1,
            shape[0] * shape[2] * shape[3] * shape[4]};
  }
  unsigned blocks() const { return grid_for(ceil_div(count, lanes)); }

  // Calls visit(cell) for this thread's share of a channel.
  template <class Visit>
  __device__ __forceinline__ void for_each(int channel, Visit visit) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (channel >= count) return;
    for (int64_t pixel = thread / lanes; pixel < pixels; pixel += kChannelThreads / lanes) {
      Cell cell = Cell::of(pixel, 1, image, false);
      cell.c = channel;
      visit(cell);
    }
  }
  __device__ __forceinline__ int first_channel() const { return static_cast<int>(blockIdx.x) * lanes; }
  __device__ __forceinline__ int channel_step() const { return static_cast<int>(gridDim.x) * lanes; }
};

struct BlockSums {
  double value[kChannelThreads];
};

// The sum of the values of the threads of one channel, in each of them: pairs half the block apart, then a quarter, and
// so on.
__device__ inline double channel_sum(BlockSums& shared, double value, int lanes) {
  const int thread = static_cast<int>(threadIdx.x);
  shared.value[thread] = value;
  __syncthreads();
  for (int half = kChannelThreads / 2; half >= lanes; half /= 2) {
    if (thread < half) shared.value[thread] += shared.value[thread + half];
    __syncthreads();
  }
  const double sum = shared.value[thread % lanes];
  __syncthreads();  // before the next sum is put there
  return sum;
}

}  // namespace fastconv::cuda
