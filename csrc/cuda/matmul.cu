// The dense product, c[rows, columns] = a[rows, terms] b[terms, columns] + bias[columns], then max(c, 0) if relu: the
// product of gemm/, its operands plain matrices. The columns of b are what the product calls the rows of an operand.
#include <limits>

#include "cuda/gemm/product.cuh"

namespace fastconv::cuda {

template <class T>
void matmul(Matrix<const T> a, Matrix<const T> b, Vector<const T> bias, Matrix<T> c, bool relu, Precision precision) {
  Product<T> p;
  p.a.data = a.data;
  p.a.rows = one_digit(a.rows, a.row_stride);
  p.a.terms = one_digit(a.cols, a.col_stride);
  p.a.along_terms = a.row_stride != 1;
  p.b.data = b.data;
  p.b.rows = one_digit(b.cols, b.col_stride);
  p.b.terms = one_digit(b.rows, b.row_stride);
  p.b.along_terms = b.col_stride != 1;
  p.c.data = c.data;
  p.c.rows = one_digit(c.rows, c.row_stride);
  p.c.columns = one_digit(c.cols, c.col_stride);
  p.bias = bias;
  p.bias_by_row = false;
  p.relu = relu;
  p.rows = c.rows;
  p.columns = c.cols;
  p.terms = a.cols;
  multiply(p, precision, std::numeric_limits<std::size_t>::max());
}

#define FASTCONV_INSTANTIATE(T) \
  template void matmul(Matrix<const T>, Matrix<const T>, Vector<const T>, Matrix<T>, bool, Precision);
FASTCONV_INSTANTIATE(Float16)
FASTCONV_INSTANTIATE(BFloat16)
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cuda
