// The dense layer's product, cut into blocks of the result so that every thread has one.
#include <algorithm>

#include "gemm_blas.hpp"
#include "patches.hpp"
#include "thread_pool.hpp"
#include "workspace.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kRows = 128, kCols = 512;  // of a task's block of the result
constexpr int64_t kMinRows = 16;             // of a block when there would be too few tasks
constexpr int64_t kMinTasks = 4;
constexpr double kSerialFlops = 2e5;  // below this, waking a thread costs more than it saves

// The matrix where it lies, or copied to `scratch`.
template <class T>
Matrix<const T> readable(const Matrix<const T>& a, T* scratch) {
  if (blas_matrix(a)) return a;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) scratch[i * a.cols + j] = a.data[i * a.row_stride + j * a.col_stride];
  }
  return {scratch, a.rows, a.cols, a.cols, 1};
}

template <class T>
std::size_t scratch_bytes(const Matrix<T>& a) {
  return blas_matrix(a) ? 0 : array_bytes(a.rows, a.cols, sizeof(T));
}

}  // namespace

template <class T>
void matmul(Matrix<const T> a, Matrix<const T> b, Vector<const T> bias, bool relu, Matrix<T> c) {
  const std::size_t a_bytes = scratch_bytes(a), b_bytes = scratch_bytes(b), c_bytes = scratch_bytes(c);
  const Workspace memory(a_bytes + b_bytes + c_bytes);
  load_blas();
  const Matrix<const T> lhs = readable(a, memory.at<T>(0)), rhs = readable(b, memory.at<T>(a_bytes));
  const Matrix<T> result = c_bytes == 0 ? c : Matrix<T>{memory.at<T>(a_bytes + b_bytes), c.rows, c.cols, c.cols, 1};

  const Blocks cols(c.cols, kCols);
  const Blocks rows(c.rows, std::clamp(c.rows * cols.count / kMinTasks, kMinRows, kRows));
  const bool finish = bias.data != nullptr || relu || c_bytes > 0 || a.cols == 0;
  const double flops = 2.0 * static_cast<double>(c.rows) * static_cast<double>(c.cols) * static_cast<double>(a.cols);
  parallel_for(rows.count * cols.count, flops < kSerialFlops ? 1 : num_threads(), [&](int64_t task, int) {
    const Range i = rows[task / cols.count], j = cols[task % cols.count];
    const Matrix<T> block = result.block(i.begin, j.begin, i.size(), j.size());
    if (a.cols > 0 && i.size() > 0 && j.size() > 0) {
      gemm(lhs.block(i.begin, 0, i.size(), a.cols), rhs.block(0, j.begin, a.cols, j.size()), block, false);
    }
    for (int64_t row = 0; finish && row < i.size(); ++row) {
      for (int64_t col = 0; col < j.size(); ++col) {
        T value = a.cols > 0 ? block.data[row * block.row_stride + col * block.col_stride] : T(0);
        if (bias.data != nullptr) value += bias[j.begin + col];
        if (relu && value < 0) value = T(0);
        c.data[(i.begin + row) * c.row_stride + (j.begin + col) * c.col_stride] = value;
      }
    }
  });
}

template void matmul(Matrix<const float>, Matrix<const float>, Vector<const float>, bool, Matrix<float>);
template void matmul(Matrix<const double>, Matrix<const double>, Vector<const double>, bool, Matrix<double>);

}  // namespace fastconv::cpu
