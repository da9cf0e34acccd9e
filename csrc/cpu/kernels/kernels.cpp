// Built once per instruction set, with FASTCONV_ISA the namespace and name of it. Includes nothing whose inline
// functions another object could share: the linker would keep one copy, perhaps the one with instructions that the CPU
// lacks.
#include "table.hpp"

#include "batch_norm.hpp"
#include "depthwise.hpp"
#include "depthwise_pixels3x3.hpp"
#include "depthwise_planes3x3.hpp"
#include "gemm.hpp"
#include "pack.hpp"
#include "pool.hpp"
#include "pool_gradient.hpp"
#include "sum.hpp"
#include "winograd.hpp"

#define FASTCONV_STRING_(x) #x
#define FASTCONV_STRING(x) FASTCONV_STRING_(x)

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

// Null where registers are too few for so many vectors.
template <class T, int kColumns>
constexpr typename GemmKernels<T>::Tile by_rows() {
  if constexpr (kColumns <= kRowsVectors) return tile<T, kColumns, LeftLayout::kByRows>;
  return nullptr;
}
template <class T>
constexpr GemmKernels<T> kGemm{kMr,
                               kNr<T>,
                               kRowsMr,
                               kRowsNr<T>,
                               kBlockBytes / sizeof(T),
                               tile<T, kVectors, LeftLayout::kByK>,
                               tile<T, 1, LeftLayout::kByK>,
                               tile<T, kVectors, LeftLayout::kPitched>,
                               {tile_column<T>, by_rows<T, 1>(), by_rows<T, 2>(), by_rows<T, 3>(), by_rows<T, 4>()},
                               tile_scattered<T, kVectors>,
                               tile_scattered<T, 1>,
                               tile_packing<T>,
                               tile_planes<T>,
                               dot<T>,
                               kDotRows,
                               kDotCols};

template <class T>
constexpr LayoutKernels<T> kLayout{kLanes<T>,     planes_to_pixels<T>, pixels_to_planes<T>, copy_rows<T>,
                                   pack_lanes<T>, pack_rows<T>,        copy_padded<T>,      pack_runs<T>};

template <class T>
constexpr DepthwiseKernels<T> kDepthwise{depthwise_pixels<T>,
                                         depthwise_reduce_pixels<T>,
                                         {pixels3x3<T, 1>, pixels3x3<T, 2>},
                                         {reduce_pixels3x3<T, 1>, reduce_pixels3x3<T, 2>},
                                         {planes3x3<T, 1>, planes3x3<T, 2>},
                                         {reduce_planes3x3<T, 1>, reduce_planes3x3<T, 2>},
                                         spread_plane3x3<T>,
                                         depthwise_row<T>,
                                         depthwise_reduce_row<T>};
template <class T>
constexpr PoolKernels<T> kPool{max_block<T>};
template <class T>
constexpr PoolGradientKernels<T> kPoolGradient{spread_block<T>};
template <class T>
constexpr SumKernels<T> kSum{sum_rows<T>,          slide<T>,      sum_run<T>, run_in_double<T>,
                             columns_in_double<T>, interleave<T>, divide<T>};
template <class T, int kOutputs, int kTaps, class W = Winograd<T, kOutputs, kTaps>>
constexpr WinogradTransforms<T> kTransforms{W::input,  W::input_gradient, W::filter,
                                            W::output, W::gradient,       W::filter_gradient};
template <class T>
constexpr WinogradKernels<T> kWinograd{kTransforms<T, 4, 3>, kTransforms<T, 2, 3>, kTransforms<T, 2, 5>};
template <class T>
constexpr BatchNormKernels<T> kBatchNorm{channel_sums<T>, channel_affine<T>};

template <class T>
constexpr PeakKernels<T> kPeak{fma<T>};

}  // namespace

extern const Kernels kernels;
const Kernels kernels{FASTCONV_STRING(FASTCONV_ISA),
                      {kGemm<float>, kGemm<double>},
                      {kLayout<float>, kLayout<double>},
                      {kDepthwise<float>, kDepthwise<double>},
                      {kPool<float>, kPool<double>, kPool<int8_t>, kPool<uint8_t>, kPool<int32_t>, kPool<int64_t>},
                      {kPoolGradient<float>, kPoolGradient<double>},
                      {kSum<float>, kSum<double>},
                      {kWinograd<float>, kWinograd<double>},
                      {kBatchNorm<float>, kBatchNorm<double>},
                      {kPeak<float>, kPeak<double>}};

}  // namespace fastconv::cpu::FASTCONV_ISA
