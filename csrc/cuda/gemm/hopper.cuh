// The instructions of compute capability 9.0a: barriers that count bytes (mbarrier), copies of whole tiles and patches
// by tensor maps (TMA), and products of a warpgroup on matrices in shared memory (wgmma). Cells are float16 or
// bfloat16.
//
// A tile lies in shared memory as lines of 64 cells, 128 bytes; of each eight lines the 16-byte chunks are exchanged by
// an exclusive or with the line's number, on the way in by the copy and on the way out by the product. Tiles begin at
// multiples of 1024 bytes.
#pragma once

#include <array>
#include <type_traits>

#include "cuda/runtime/half.hpp"
#include "cuda/runtime/launch.hpp"

#ifdef __CUDACC__
#include <cuda.h>
#else
#include <wgmma.hpp>  // of tests/emulator
#endif

namespace fastconv::cuda {

inline constexpr int kLineCells = 64, kLineBytes = 128, kTileAlignment = 1024;
inline constexpr int kWarpgroupSize = 128, kWarpgroupRows = 64, kWgmmaTerms = 16;

#ifdef __CUDACC__

using TensorMap = CUtensorMap;

// A function of the driver: the module must load where there is none, so nothing is linked.
template <class Function>
Function* driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) throw std::runtime_error(std::string("CUDA: the driver has no ") + name);
  return reinterpret_cast<Function*>(found);
}

template <class T>
inline constexpr CUtensorMapDataType kMapType =
    std::is_same_v<T, BFloat16> ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;

template <class T>
bool encode_tiled(TensorMap& map, int rank, const T* data, const uint64_t* extents, const uint64_t* strides,
                  const uint32_t* box) {
  constexpr uint32_t steps[] = {1, 1, 1, 1, 1};
  return driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled")(
             &map, kMapType<T>, static_cast<unsigned>(rank), const_cast<T*>(data), extents, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
template <class T>
bool encode_im2col(TensorMap& map, const T* data, const uint64_t* extents, const uint64_t* strides, const int* lower,
                   const int* upper, uint32_t channels, uint32_t pixels, const uint32_t* steps) {
  return driver_function<decltype(cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col")(
             &map, kMapType<T>, 4, const_cast<T*>(data), extents, strides, lower, upper, channels, pixels, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// A phase of the barrier ends with so many arrivals and all bytes that they said were to come. Before other threads or
// copies use it: fence_barriers(), then __syncthreads().
__device__ __forceinline__ void init_barrier(uint64_t* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits for the end of the phase of this parity: the first is 0, and that of 1 counts as ended before it.
__device__ __forceinline__ void wait_for_phase(uint64_t* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Copies a box of a tensor of three axes whose first cell is (i, j, k).
__device__ __forceinline__ void copy_tile(void* to, const TensorMap& map, uint64_t* barrier, int i, int j, int k) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(i), "r"(j), "r"(k)
      : "memory");
}
// Copies one cell each of consecutive patches, from channel c on. The first patch begins at (w, h) of image n, and the
// cell lies (offset_w, offset_h) further.
__device__ __forceinline__ void copy_patches(void* to, const TensorMap& map, uint64_t* barrier, int c, int w, int h,
                                             int n, int offset_w, int offset_h) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2], {%7, %8};" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(static_cast<uint16_t>(offset_w)),
      "h"(static_cast<uint16_t>(offset_h))
      : "memory");
}

// From here on registers of sums belong to the products that follow, until these have been waited for. Passing them
// through an empty instruction keeps the compiler from moving what it does with them across.
template <int kCount>
__device__ __forceinline__ void hold(float (&sums)[kCount][4]) {
#pragma unroll
  for (float (&four)[4] : sums) {
#pragma unroll
    for (float& sum : four) asm volatile("" : "+f"(sum)::"memory");
  }
}
template <int kCount>
__device__ __forceinline__ void begin_products(float (&sums)[kCount][4]) {
  hold(sums);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void close_product_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `kOpen` groups are not complete; the warp has then read their operands.
template <int kOpen, int kCount>
__device__ __forceinline__ void wait_for_products(float (&sums)[kCount][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kOpen) : "memory");
  if constexpr (kOpen == 0) hold(sums);
}

#define FASTCONV_SUMS4(j) "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
#define FASTCONV_SUMS16(j) FASTCONV_SUMS4(j), FASTCONV_SUMS4(j + 1), FASTCONV_SUMS4(j + 2), FASTCONV_SUMS4(j + 3)
#define FASTCONV_32                                                                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, "                                                                                                          \
  "%25, %26, %27, %28, %29, %30, %31"
#define FASTCONV_64                                                                                        \
  FASTCONV_32                                                                                              \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FASTCONV_WGMMA64(type)                                                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" FASTCONV_32 \
               "}, %32, %33, 1, 1, 1, 0, 0;"                                                \
               : FASTCONV_SUMS16(0), FASTCONV_SUMS16(4)                                     \
               : "l"(a), "l"(b))
#define FASTCONV_WGMMA128(type)                                                                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" FASTCONV_64     \
               "}, %64, %65, 1, 1, 1, 0, 0;"                                                     \
               : FASTCONV_SUMS16(0), FASTCONV_SUMS16(4), FASTCONV_SUMS16(8), FASTCONV_SUMS16(12) \
               : "l"(a), "l"(b))

// sums += a b for 64 rows of a, kColumns of b and 16 terms, by descriptors. Of its warpgroup's sums a thread has
//
//   sums[j][i]   row 16 warp + lane / 4 + 8 (i / 2), column 8 j + 2 (lane % 4) + i % 2
template <class T, int kColumns>
__device__ __forceinline__ void multiply_tiles(float (&sums)[kColumns / 8][4], uint64_t a, uint64_t b) {
  static_assert(kColumns == 64 || kColumns == 128);
  if constexpr (kColumns == 64 && std::is_same_v<T, BFloat16>) {
    FASTCONV_WGMMA64("bf16");
  } else if constexpr (kColumns == 64) {
    FASTCONV_WGMMA64("f16");
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    FASTCONV_WGMMA128("bf16");
  } else {
    FASTCONV_WGMMA128("f16");
  }
}

#undef FASTCONV_SUMS4
#undef FASTCONV_SUMS16
#undef FASTCONV_32
#undef FASTCONV_64
#undef FASTCONV_WGMMA64
#undef FASTCONV_WGMMA128

#else  // the emulator

using emulator::encode_im2col;
using emulator::encode_tiled;
using emulator::init_barrier;
using emulator::TensorMap;

inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(emulator::shared_address(pointer, 1));
}
inline void fence_barriers() {}
inline void arrive(uint64_t* barrier) { emulator::arrive(barrier, 0); }
inline void arrive_expecting(uint64_t* barrier, unsigned bytes) { emulator::arrive(barrier, bytes); }
inline void wait_for_phase(uint64_t* barrier, unsigned parity, emulator::Site site = emulator::Site::current()) {
  emulator::wait_for_phase(barrier, parity, site);
}
inline void copy_tile(void* to, const TensorMap& map, uint64_t* barrier, int i, int j, int k) {
  emulator::begin_copy({emulator::make_tiled_copy, map, static_cast<unsigned char*>(to), barrier, {i, j, k, 0}, {}});
}
inline void copy_patches(void* to, const TensorMap& map, uint64_t* barrier, int c, int w, int h, int n, int offset_w,
                         int offset_h) {
  emulator::begin_copy({emulator::make_im2col_copy,
                        map,
                        static_cast<unsigned char*>(to),
                        barrier,
                        {c, w, h, n},
                        {static_cast<unsigned>(offset_w), static_cast<unsigned>(offset_h)}});
}
template <int kCount>
void begin_products(float (&)[kCount][4]) {}
inline void close_product_group() { emulator::close_group(emulator::Work::products); }
template <int kOpen, int kCount>
void wait_for_products(float (&)[kCount][4], emulator::Site site = emulator::Site::current()) {
  for (emulator::Task product; emulator::next_due(emulator::Work::products, kOpen, product);) product.make(product);
  __syncwarp(~0u, site);
}
template <class T, int kColumns>
void multiply_tiles(float (&sums)[kColumns / 8][4], uint64_t a, uint64_t b,
                    emulator::Site site = emulator::Site::current()) {
  emulator::begin_product<T, kColumns>(sums, a, b, site);
}

#endif

// Says where a tile of an operand begins that lies by terms: lines of 64 terms, groups of eight 1024 bytes apart.
__device__ __forceinline__ uint64_t tile_descriptor(const void* tile) {
  constexpr uint64_t kGroupBytes = 8 * kLineBytes, kSwizzle128 = 1;
  return (shared_address(tile) & 0x3ffffu) >> 4 | uint64_t{1} << 16 | kGroupBytes >> 4 << 32 | kSwizzle128 << 62;
}
// The same tile from a later term on, a multiple of 16 below 64.
__device__ __forceinline__ uint64_t from_term(uint64_t descriptor, int term) {
  return descriptor + static_cast<uint64_t>(term * kLineBytes / kLineCells / 16);
}

}  // namespace fastconv::cuda
