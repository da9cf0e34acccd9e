// The op c[rows, columns] = a[rows, terms] b[terms, columns] + bias[columns] as a call of the product that every pass
// shares.
#include <cstdlib>
#include <memory>
#include <utility>

#include "cpu/runtime/workspace.hpp"
#include "ops.hpp"
#include "product.hpp"

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
  Product<T> product;
  product.rows = c.rows;
  product.columns = c.cols;
  product.terms = a.cols;
  product.left = std::make_unique<MatrixOperand<T>>(a.data, a.row_stride, a.col_stride);
  product.right = std::make_unique<MatrixOperand<T>>(b.data, b.col_stride, b.row_stride);
  product.result = c.data;
  product.row_offsets = Lattice::line(c.rows, c.row_stride);
  product.column_offsets = Lattice::line(c.cols, c.col_stride);
  (swap ? product.row_bias : product.column_bias) = bias;
  product.relu = relu;
  (c.rows <= c.cols ? product.share_left : product.share_right) = true;
  constexpr Variant kMatrices{"matrices", "both operands are matrices"};
  const ProductJob<T> job(kMatrices, std::move(product), kUnlimited, "implicit");
  const Workspace memory(job.bytes());
  job.run(memory.at<std::byte>(0));
}

template void matmul(Matrix<const float>, Matrix<const float>, Vector<const float>, Matrix<float>, bool, Precision);
template void matmul(Matrix<const double>, Matrix<const double>, Vector<const double>, Matrix<double>, bool, Precision);

}  // namespace fastconv::cpu
