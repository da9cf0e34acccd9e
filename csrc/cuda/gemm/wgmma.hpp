// Convolution by the instructions of compute capability 9.0a: wgmma.cu, built for that target alone.
#pragma once

#include "product.cuh"

namespace fastconv::cuda {

// What a pass would have to be for the kernel to serve it; null if it is.
const char* wgmma_needs(Pass pass, const ConvShape& shape);

// Whether the kernel can read x[n][c][h][w], its extents given as {c, w, h, n}: std::invalid_argument where it lies
// otherwise or has another dtype, std::runtime_error where the device is another.
template <class T>
void check_wgmma(const Tensor<const T>& x, const std::array<int64_t, 4>& extents);

// Computes p.c, whose rows are pixels and whose columns are filters, with bias and ReLU; of p's operands nothing is
// read. Filters lie [K][R][S][C], 16-byte aligned.
template <class T>
void wgmma_fprop(const ConvShape& shape, const Tensor<const T>& x, const T* filters, const Product<T>& p);

}  // namespace fastconv::cuda
