// Sums: the bias gradients of convolution and dense layers. float32 data adds up in float64, always in the same order.
#include <algorithm>

#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "cpu/walk/parts.hpp"

namespace fastconv::cpu {
namespace {

using namespace tuning::elementwise;

// totals[j] += the sum of column j.
template <class T>
void add_columns(const Matrix<const T>& a, double* totals) {
  const SumKernels<T>& kernel = sum_kernels<T>();
  if (a.col_stride == 1 && a.row_stride != 1)
    return kernel.columns_in_double(totals, a.data, a.row_stride, a.rows, a.cols);
  for (int64_t j = 0; j < a.cols; ++j) {
    const T* column = a.data + j * a.col_stride;
    if (a.row_stride == 1) totals[j] += kernel.run_in_double(column, a.rows);
    for (int64_t i = 0; a.row_stride != 1 && i < a.rows; ++i)
      totals[j] += static_cast<double>(column[i * a.row_stride]);
  }
}

// sums[j] is the total of column j: add(rows, columns, totals) of each part of the rows.
template <class T, class Add>
void sum_columns(const Vector<T>& sums, int64_t rows, int64_t cols, double work, Add add) {
  const Blocks columns(cols, rows < kFewRows ? kFewColumns : kColumns), parts(rows, ceil_div(rows, kParts));
  const int64_t size = columns.count * kColumns;  // of the totals of a part
  const Workspace memory(array_bytes(parts.count, size, sizeof(double)));
  double* totals = memory.at<double>(0);
  parallel_for(parts.count * columns.count, threads_for(work, kSerialSums), [&](int64_t task, int) noexcept {
    const int64_t part = task / columns.count, block = task % columns.count;
    double* own = totals + part * size + block * kColumns;
    std::fill_n(own, kColumns, 0.0);
    add(parts[part], columns[block], own);
  });
  sum_parts(totals, parts.count, size, size);
  for (int64_t j = 0; j < cols; ++j) sums[j] = static_cast<T>(totals[j / columns.size * kColumns + j % columns.size]);
}

}  // namespace

template <class T>
void column_sum(Matrix<const T> a, Vector<T> sums) {
  sum_columns(
      sums, a.rows, a.cols, static_cast<double>(a.rows) * static_cast<double>(a.cols),
      [&](Range i, Range j, double* totals) { add_columns(a.block(i.begin, j.begin, i.size(), j.size()), totals); });
}

template <class T>
void conv_bgrad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Vector<T> db) {
  const Extents extents{shape[2], shape[3], shape[4]};
  const auto joined = spatial_stride(dy, extents);
  const double work =
      static_cast<double>(shape[0]) * static_cast<double>(shape[1]) * static_cast<double>(volume(extents));
  sum_columns(db, shape[0], shape[1], work, [&](Range images, Range k, double* totals) {
    for (int64_t n = images.begin; n < images.end; ++n) {
      const T* image = dy.at(n, k.begin);
      if (joined) {
        add_columns<T>({image, volume(extents), k.size(), *joined, dy.stride[1]}, totals);
        continue;
      }
      for_each_run(extents, {0, volume(extents)}, [&](int64_t, int64_t z, int64_t p, Range q) {
        const T* row = image + z * dy.stride[2] + p * dy.stride[3];
        add_columns<T>({row, q.size(), k.size(), dy.stride[4], dy.stride[1]}, totals);
      });
    }
  });
}

template void column_sum(Matrix<const float>, Vector<float>);
template void column_sum(Matrix<const double>, Vector<double>);
template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const float>, Vector<float>);
template void conv_bgrad(const std::array<int64_t, 5>&, Tensor<const double>, Vector<double>);

}  // namespace fastconv::cpu
