// The instructions of the tensor cores (compute capability 8.0 and up), and how a warp holds their operands.
//
// One multiplication adds 16 rows of a times 8 columns of b over 32 bytes of terms: 8 terms of tf32, 16 of float16 or
// bfloat16. Counted in 32-bit words, operands of all types lie alike. With g = lane / 4 and t = lane % 4, a lane has
//
//   a[i]     row g + 8 (i % 2), word t + 4 (i / 2)
//   b[i]     column g,          word t + 4 i
//   sums[i]  row g + 8 (i / 2), column 2 t + i % 2
#pragma once

#include <type_traits>

#include "cuda/runtime/half.hpp"
#include "cuda/runtime/launch.hpp"

#ifndef __CUDACC__
#include <mma.hpp>  // of tests/emulator
#endif

namespace fastconv::cuda {

inline constexpr int kMultiplyBytes = 32;  // of terms
template <class T>
inline constexpr int kMultiplyTerms = kMultiplyBytes / static_cast<int>(sizeof(T));

#ifdef __CUDACC__

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr bool kHasTensorCores = false;
#else
inline constexpr bool kHasTensorCores = true;
#endif

// Four matrices of 8 lines of 16 bytes from shared memory: lane l says where line l % 8 of matrix l / 8 is. Of matrix i
// it gets word t of line g in words[i]; transposed, cells 2t and 2t + 1 of column g, which are 16 bits wide.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const void* line) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(line));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  }
}

// The nearest number of tf32, which has 10 bits of mantissa, from the bits of a float32.
__device__ __forceinline__ unsigned round_to_tf32(unsigned word) {
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(word)));
  return rounded;
}

#define FASTCONV_MMA(shape_and_types)                                                                                 \
  asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// sums += a b; float stands for tf32.
template <class T>
__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (std::is_same_v<T, float>) FASTCONV_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  if constexpr (std::is_same_v<T, Float16>) FASTCONV_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  if constexpr (std::is_same_v<T, BFloat16>) FASTCONV_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
}
#undef FASTCONV_MMA

#else  // the emulator

inline constexpr bool kHasTensorCores = true;

template <bool kTransposed>
void load_matrices(unsigned (&words)[4], const void* line, emulator::Site site = emulator::Site::current()) {
  emulator::load_matrices<kTransposed>(words, line, site);
}
inline unsigned round_to_tf32(unsigned word) { return emulator::round_to_tf32(word); }
template <class T>
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                  emulator::Site site = emulator::Site::current()) {
  emulator::multiply_add<T>(sums, a, b, site);
}

#endif

}  // namespace fastconv::cuda
