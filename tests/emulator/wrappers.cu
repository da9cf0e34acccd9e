// Each instruction behind a wrapper of ours, on the same inputs by a device (built by nvcc) and by the emulator (g++):
// prints what it made of them, to be compared bit for bit. Inputs are such that sums are exact and nothing is NaN.
#include <bit>
#include <cstdio>
#include <vector>

#include "cuda/chunks.cuh"

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

struct Wrapper {
  const char* name;
  void (*kernel)(const unsigned*, unsigned*);
};
constexpr Wrapper kWrappers[] = {
    {"copies of 4 bytes", copies<float>},
    {"copies of 8 bytes", copies<double>},
    {"copies of 16 bytes", copies<Chunk>},
    {"shuffles", shuffles},
    {"atomic minimum and maximum", extrema},
    {"ldmatrix", matrices<false>},
    {"ldmatrix, transposed", matrices<true>},
    {"mma of tf32", products<float>},
    {"mma of float16", products<Float16>},
    {"mma of bfloat16", products<BFloat16>},
    {"conversions", conversions},
};

using Words = std::vector<unsigned>;

Words result_of(const Wrapper& wrapper, const Words& in) {
  Words out(in.size());
#ifdef __CUDACC__
  const std::size_t bytes = in.size() * sizeof(unsigned);
  unsigned* memory = nullptr;
  check(cudaMalloc(&memory, 2 * bytes));
  check(cudaMemcpy(memory, in.data(), bytes, cudaMemcpyHostToDevice));
  check(cudaMemset(memory + in.size(), 0, bytes));
  launch(wrapper.kernel, 1, kWarpSize, sizeof(Lanes<Chunk>), memory, memory + in.size());
  check(cudaMemcpy(out.data(), memory + in.size(), bytes, cudaMemcpyDeviceToHost));
  check(cudaFree(memory));
#else
  launch(wrapper.kernel, 1, kWarpSize, sizeof(Lanes<Chunk>), in.data(), out.data());
#endif
  return out;
}

void print_all() {
  const Context context;
  const ContextScope scope(context);
  Words in(kWarpSize * kWords);
  uint32_t random = 1;
  for (unsigned& word : in) {
    random = random * 1664525u + 1013904223u;
    word = random ^ random >> 16;
  }
  for (const Wrapper& wrapper : kWrappers) {
    std::printf("%s", wrapper.name);
    const Words out = result_of(wrapper, in);
    for (std::size_t i = 0; i < out.size(); ++i) std::printf(i % kWords == 0 ? "\n%08x" : " %08x", out[i]);
    std::printf("\n");
  }
}

}  // namespace
}  // namespace fastconv::cuda

int main() {
  try {
    fastconv::cuda::print_all();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
