#include "peak.hpp"

#include "float_tables.hpp"
#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// 12 chains of vectors hide the latency of a fused multiply-add on two ports and fit 16 registers.
template <class T>
double fma(int64_t rounds) {
  constexpr int kChains = 12;
  Vector<T> sums[kChains] = {};
  Vector<T> a = Vector<T>{} + static_cast<T>(0.5), b = Vector<T>{} + static_cast<T>(0.25);
  asm volatile("" : "+m"(a), "+m"(b));  // unknown to the compiler
  const Vector<T> factor = a, term = b;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sums[j] = sums[j] * factor + term;
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "m"(sums[j]));  // used, as far as the compiler knows
  return 2.0 * kChains * kLanes<T> * static_cast<double>(rounds);
}

template <class T>
constexpr PeakKernels<T> kPeak{fma<T>};

}  // namespace

extern const FloatTables<PeakKernels> peak;
const FloatTables<PeakKernels> peak{kPeak<float>, kPeak<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
