// All that a kernel needs of its surroundings: CUDA under nvcc, the emulator of tests/emulator under g++.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "context.hpp"
#include "conv_shape.hpp"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <cuda.hpp>  // of tests/emulator
#endif

namespace fastconv::cuda {

inline constexpr int kWarpSize = 32;

// The bounds of a kernel's launch say that one block a multiprocessor will do, __launch_bounds__(threads, 1): left to
// itself, ptxas keeps to fewer registers than a kernel needs and spills the rest, which fails the build.

// Blocks of a one-dimensional grid for so many units of work: kernels loop over what a grid cannot hold.
inline unsigned grid_for(int64_t units) {
#ifdef FASTCONV_EMULATOR_SMALL_GRID
  constexpr int64_t limit = 3;  // so that these loops are run
#else
  constexpr int64_t limit = 0x7fffffff;
#endif
  return static_cast<unsigned>(units < limit ? units : limit);
}

#ifdef __CUDACC__

inline void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, std::size_t shared_bytes,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(context().stream);
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// The major number of the current device's compute capability.
inline int device_capability() {
  int device = 0, major = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major;
}

// Waits for the stream.
template <class T>
T read_back(const T* from) {
  T value;
  const auto stream = static_cast<cudaStream_t>(context().stream);
  check(cudaMemcpyAsync(&value, from, sizeof(T), cudaMemcpyDeviceToHost, stream));
  check(cudaStreamSynchronize(stream));
  return value;
}

template <class Shared>
__device__ Shared& shared_memory() {
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  return *reinterpret_cast<Shared*>(shared_bytes);
}

// One value from global to shared memory, or zero, without waiting for it where the device can (8.0 and up). Where it
// is not valid, nothing is read.
template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool valid) {
#if __CUDA_ARCH__ >= 800
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(sizeof(T)),
               "r"(valid ? static_cast<int>(sizeof(T)) : 0)
               : "memory");
#else
  *to = valid ? *from : T{};
#endif
}

__device__ __forceinline__ void close_copy_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `kOpen` of this thread's groups are not complete.
template <int kOpen>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
#endif
}

// What memory holds at some moment, not necessarily now.
__device__ __forceinline__ int relaxed_load(const int* from) { return *const_cast<const volatile int*>(from); }

#else  // the emulator

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, std::size_t shared_bytes,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  } call{kernel, std::tuple<Parameters...>(arguments...)};
  const auto body = [](void* p) {
    auto* const c = static_cast<Call*>(p);
    std::apply(c->kernel, c->arguments);
  };
  if (!emulator::run(blocks, threads, shared_bytes, body, &call)) throw std::runtime_error("CUDA: invalid launch");
}

inline int device_capability() { return emulator::options().capability; }

template <class T>
T read_back(const T* from) {
  return *from;
}

template <class Shared>
Shared& shared_memory() {
  return *static_cast<Shared*>(emulator::shared_memory());
}

// The copy counts as a read and a write of the thread that issued it.
template <class T>
void make_copy(const emulator::Task& task) {
  *static_cast<T*>(task.to) = task.from == nullptr ? T{} : *static_cast<const T*>(task.from);
}
template <class T>
void copy_async(T* to, const T* from, bool valid) {
  const emulator::Task copy{make_copy<T>, to, valid ? from : nullptr, {}};
  emulator::check_copy(copy.to, copy.from, sizeof(T));
  if (!emulator::defer(emulator::Work::copies, copy)) copy.make(copy);
}
inline void close_copy_group() { emulator::close_group(emulator::Work::copies); }
template <int kOpen>
void wait_for_copies() {
  for (emulator::Task copy; emulator::next_due(emulator::Work::copies, kOpen, copy);) copy.make(copy);
}
inline int relaxed_load(const int* from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }

#endif

}  // namespace fastconv::cuda
