// Built once per instruction set, with FASTCONV_ISA the namespace and name of it. Includes nothing whose inline
// functions another object could share: the linker would keep one copy, perhaps the one with instructions that the CPU
// lacks.
#include "kernels.hpp"

#define FASTCONV_STRING_(x) #x
#define FASTCONV_STRING(x) FASTCONV_STRING_(x)

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// 12 chains of vectors hide the latency of an FMA on two ports and fit the 16 registers of the narrower sets.
template <class T>
double fma(int64_t rounds) {
  using Vector [[gnu::vector_size(kVectorBytes)]] = T;
  constexpr int kChains = 12;
  Vector sums[kChains] = {};
  Vector a = Vector{} + static_cast<T>(0.5), b = Vector{} + static_cast<T>(0.25);
  asm volatile("" : "+m"(a), "+m"(b));  // unknown to the compiler
  const Vector factor = a, term = b;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sums[j] = sums[j] * factor + term;
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "m"(sums[j]));  // used, as far as the compiler knows
  return 2.0 * kChains * (kVectorBytes / sizeof(T)) * static_cast<double>(rounds);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels{FASTCONV_STRING(FASTCONV_ISA), fma<float>, fma<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
