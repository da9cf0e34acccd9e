// The op c[m,n] = a[m,k] b[k,n] + bias[n] as a call of the product that every pass shares.
#include <cstdlib>
#include <utility>

#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "gemm.hpp"
#include "ops.hpp"

namespace fastconv::cpu {

template <class T>
void matmul(Matrix<const T> a, Matrix<const T> b, Vector<const T> bias, Matrix<T> c, bool relu, Precision) {
  if (c.rows == 0 || c.cols == 0) return;
  // The micro-kernel writes rows: a result that lies by columns is the transposed product.
  const bool swap = std::abs(c.row_stride) < std::abs(c.col_stride);
  if (swap) {
    std::swap(a, b);
    a = a.transposed();
    b = b.transposed();
    c = c.transposed();
  }
  const MatrixOperand<T> left(a.data, a.row_stride, a.col_stride), right(b.data, b.col_stride, b.row_stride);
  Product<T> product;
  product.m = c.rows;
  product.n = c.cols;
  product.k = a.cols;
  product.left = &left;
  product.right = &right;
  product.result = c.data;
  product.rows = Lattice::line(c.rows, c.row_stride);
  product.cols = Lattice::line(c.cols, c.col_stride);
  (swap ? product.row_bias : product.col_bias) = bias;
  product.relu = relu;
  (c.rows <= c.cols ? product.share_left : product.share_right) = true;
  multiply(product, num_threads(), kUnlimited);
}

template void matmul(Matrix<const float>, Matrix<const float>, Vector<const float>, Matrix<float>, bool, Precision);
template void matmul(Matrix<const double>, Matrix<const double>, Vector<const double>, Matrix<double>, bool, Precision);

}  // namespace fastconv::cpu
