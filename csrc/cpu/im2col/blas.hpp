// One thread's GEMM by the BLAS that is installed beside the module: the baseline.
#pragma once

#include "ops.hpp"

namespace fastconv::cpu {

// Whether BLAS can read (or write) the matrix where it lies: one unit stride, and rows that do not overlap.
template <class T>
bool blas_matrix(const Matrix<T>& a);

// c[m,n] = a[m,k] b[k,n], added to c if `accumulate`; without it c is never read. All three are BLAS matrices.
template <class T>
void gemm(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, bool accumulate);

// Loads the library, which costs milliseconds and happens once; throws std::runtime_error if it cannot be.
void load_blas();
const char* blas_version();

}  // namespace fastconv::cpu
