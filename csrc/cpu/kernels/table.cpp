// Built once per instruction set, as every unit here, with FASTCONV_ISA the namespace and name of it. None includes
// anything whose inline functions another object could share: the linker would keep one copy, perhaps the one with
// instructions that the CPU lacks.
#include "table.hpp"

#define FASTCONV_STRING_(x) #x
#define FASTCONV_STRING(x) FASTCONV_STRING_(x)

namespace fastconv::cpu::FASTCONV_ISA {

extern const FloatTables<GemmKernels> gemm;
extern const FloatTables<LayoutKernels> layout;
extern const FloatTables<DepthwiseKernels> depthwise;
extern const PoolTables pool;
extern const FloatTables<PoolGradientKernels> pool_gradient;
extern const FloatTables<SumKernels> sum;
extern const FloatTables<WinogradKernels> winograd;
extern const FloatTables<BatchNormKernels> batch_norm;
extern const FloatTables<PeakKernels> peak;

extern const Kernels kernels;
const Kernels kernels{
    FASTCONV_STRING(FASTCONV_ISA), gemm, layout, depthwise, pool, pool_gradient, sum, winograd, batch_norm, peak};

}  // namespace fastconv::cpu::FASTCONV_ISA
