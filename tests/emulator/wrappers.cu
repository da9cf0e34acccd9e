// Each instruction behind a wrapper of ours, on the same inputs by a device (built by nvcc) and by the emulator (g++):
// prints what it made of them, to be compared bit for bit. Inputs are such that sums are exact and nothing is NaN.
#include <bit>

#include "cuda/gemm/chunks.cuh"
#include "wrappers.hpp"

namespace fastconv::cuda {
namespace {

constexpr int kWords = 8;  // of a lane, in and out

template <class T>
struct Lanes {
  T of[kWarpSize];
};

template <class T>
__global__ void copies(const unsigned* in, unsigned* out) {
  constexpr int kSize = sizeof(T) / sizeof(unsigned);
  auto& lanes = shared_memory<Lanes<T>>();
  const int lane = static_cast<int>(threadIdx.x);
  copy_async(&lanes.of[lane], reinterpret_cast<const T*>(in + lane * kWords), lane % 3 != 0);
  close_copy_group();
  wait_for_copies<0>();
  __syncthreads();
  const auto* const words = reinterpret_cast<const unsigned*>(&lanes.of[lane ^ 5]);
  for (int i = 0; i < kSize; ++i) out[lane * kWords + i] = words[i];
}

__global__ void shuffles(const unsigned* in, unsigned* out) {
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 5; ++i) {
    const auto value = std::bit_cast<int>(in[lane * kWords + i]);
    out[lane * kWords + i] = std::bit_cast<unsigned>(__shfl_xor_sync(0xffffffffu, value, 1 << i));
  }
}

__global__ void extrema(const unsigned* in, unsigned* out) {
  const auto value = std::bit_cast<int>(in[threadIdx.x * kWords]);
  atomicMin(reinterpret_cast<int*>(out), value);
  atomicMax(reinterpret_cast<int*>(out) + 1, value);
}

template <bool kTransposed>
__global__ void matrices(const unsigned* in, unsigned* out) {
  auto& lanes = shared_memory<Lanes<Chunk>>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 4; ++i) lanes.of[lane].word[i] = in[lane * kWords + i];
  __syncthreads();
  unsigned words[4];
  load_matrices<kTransposed>(words, &lanes.of[(lane + 3) % kWarpSize]);
  for (int i = 0; i < 4; ++i) out[lane * kWords + i] = words[i];
}

// A word of small integers of type T.
template <class T>
__device__ unsigned small_numbers(unsigned random) {
  if constexpr (sizeof(T) == 4) {
    return std::bit_cast<unsigned>(static_cast<float>(static_cast<int>(random % 15) - 7));
  } else {
    const T low(static_cast<float>(static_cast<int>(random % 15) - 7));
    const T high(static_cast<float>(static_cast<int>(random / 16 % 15) - 7));
    return static_cast<unsigned>(low.bits) | static_cast<unsigned>(high.bits) << 16;
  }
}

template <class T>
__global__ void products(const unsigned* in, unsigned* out) {
  const unsigned* const random = in + threadIdx.x * kWords;
  unsigned a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = small_numbers<T>(random[i]);
  for (int i = 0; i < 2; ++i) b[i] = small_numbers<T>(random[4 + i]);
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = static_cast<float>(random[6] >> (8 * i) & 0xffu);
  multiply_add<T>(sums, a, b);
  for (int i = 0; i < 4; ++i) out[threadIdx.x * kWords + i] = std::bit_cast<unsigned>(sums[i]);
}

__global__ void conversions(const unsigned* in, unsigned* out) {
  for (int i = 0; i < kWords; ++i) {
    unsigned word = in[threadIdx.x * kWords + i];
    if (i % 2 != 0) word = (word & 0x8fffffffu) | 0x30000000u;     // also many of float16's range
    if ((word & 0x7f800000u) == 0x7f800000u) word &= 0xff7fffffu;  // finite
    const auto value = std::bit_cast<float>(word);
    const Float16 narrow(value);
    const BFloat16 wide(value);
    const unsigned back =
        std::bit_cast<unsigned>(static_cast<float>(narrow)) ^ std::bit_cast<unsigned>(static_cast<float>(wide));
    out[threadIdx.x * kWords + i] = round_to_tf32(word) ^ (static_cast<unsigned>(narrow.bits) << 16 | wide.bits) ^ back;
  }
}

template <void (*kKernel)(const unsigned*, unsigned*)>
Wrapper wrapper(const char* name) {
  return {name, kWarpSize * kWords,
          [](const unsigned* in, unsigned* out) { launch(kKernel, 1, kWarpSize, sizeof(Lanes<Chunk>), in, out); }};
}

}  // namespace
}  // namespace fastconv::cuda

int main() {
  using namespace fastconv;
  using namespace fastconv::cuda;
  return print_all({wrapper<copies<float>>("copies of 4 bytes"), wrapper<copies<double>>("copies of 8 bytes"),
                    wrapper<copies<Chunk>>("copies of 16 bytes"), wrapper<shuffles>("shuffles"),
                    wrapper<extrema>("atomic minimum and maximum"), wrapper<matrices<false>>("ldmatrix"),
                    wrapper<matrices<true>>("ldmatrix, transposed"), wrapper<products<float>>("mma of tf32"),
                    wrapper<products<Float16>>("mma of float16"), wrapper<products<BFloat16>>("mma of bfloat16"),
                    wrapper<conversions>("conversions")},
                   random_words(kWarpSize * kWords), kWords);
}
