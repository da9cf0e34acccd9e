// What a kernel sees of CUDA when g++ compiles it: keywords, built-in variables, and the device functions that the
// kernels of csrc/cuda use. A function that is not here is not emulated.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "machine.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

using dim3 = fastconv::emulator::Extent;
#define threadIdx (fastconv::emulator::thread_index())
#define blockIdx (fastconv::emulator::block_index())
#define blockDim (fastconv::emulator::block_extent())
#define gridDim (fastconv::emulator::grid_extent())

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

inline void __syncthreads(fastconv::emulator::Site site = fastconv::emulator::Site::current()) {
  fastconv::emulator::block_barrier(site);
}

inline void __syncwarp(uint32_t mask = ~0u, fastconv::emulator::Site site = fastconv::emulator::Site::current()) {
  static const char kind{};
  fastconv::emulator::warp_fence_before();
  fastconv::emulator::collective<char>(&kind, mask, char{}, [](unsigned, auto) { return char{}; }, site);
  fastconv::emulator::warp_fence_after();
}

// The value of the lane whose number differs from one's own by the bits of `bits`.
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, unsigned bits,
                  fastconv::emulator::Site site = fastconv::emulator::Site::current()) {
  static const char kind{};
  return fastconv::emulator::collective<T>(
      &kind, mask, value,
      [=](unsigned lane, auto input_of) {
        if ((mask >> (lane ^ bits) & 1) == 0) fastconv::emulator::fault("shuffle: reads a lane outside the mask");
        return input_of(lane ^ bits);
      },
      site);
}

inline int atomicMin(int* address, int value) {
  int old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
inline int atomicMax(int* address, int value) {
  int old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value > old && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
