// Everything whose speed depends on the width of vectors: each instruction set's build fills a table of its own.
#pragma once

#include "batch_norm.hpp"
#include "depthwise.hpp"
#include "float_tables.hpp"
#include "gemm.hpp"
#include "layout.hpp"
#include "peak.hpp"
#include "pool.hpp"
#include "pool_gradient.hpp"
#include "sum.hpp"
#include "winograd.hpp"

namespace fastconv::cpu {

struct Kernels {
  const char* isa;
  const FloatTables<GemmKernels>& gemm;
  const FloatTables<LayoutKernels>& layout;
  const FloatTables<DepthwiseKernels>& depthwise;
  const PoolTables& pool;
  const FloatTables<PoolGradientKernels>& pool_gradient;
  const FloatTables<SumKernels>& sum;
  const FloatTables<WinogradKernels>& winograd;
  const FloatTables<BatchNormKernels>& batch_norm;
  const FloatTables<PeakKernels>& peak;
};

}  // namespace fastconv::cpu
