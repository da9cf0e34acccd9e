// Sums: the bias gradients of convolution and dense layers. float32 data adds up in float64, always in the same order.
#include <algorithm>

#include "patches.hpp"
#include "thread_pool.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kColumns = 16;  // sums that one task keeps: a cache line of float32

template <class T>
double sum(const T* x, int64_t stride, int64_t count) {
  double lanes[8] = {};  // eight independent chains: additions wait for each other otherwise
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) lanes[lane] += static_cast<double>(x[(i + lane) * stride]);
  }
  for (; i < count; ++i) lanes[0] += static_cast<double>(x[i * stride]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// totals[j] += the sum of column j; memory is walked along its smaller stride.
template <class T>
void add_columns(const Matrix<const T>& a, double* totals) {
  if (std::abs(a.row_stride) < std::abs(a.col_stride) || a.cols == 1) {
    for (int64_t j = 0; j < a.cols; ++j) totals[j] += sum(a.data + j * a.col_stride, a.row_stride, a.rows);
    return;
  }
  for (int64_t i = 0; i < a.rows; ++i) {
    const T* row = a.data + i * a.row_stride;
    for (int64_t j = 0; j < a.cols; ++j) totals[j] += static_cast<double>(row[j * a.col_stride]);
  }
}

// Runs add(columns, totals) for each block of columns and stores the totals.
template <class T, class Add>
void sum_blocks(const Vector<T>& sums, int64_t cols, double work, Add add) {
  const Blocks blocks(cols, kColumns);
  parallel_for(blocks.count, work < 1e5 ? 1 : num_threads(), [&](int64_t task, int) {
    const Range j = blocks[task];
    double totals[kColumns] = {};
    add(j, totals);
    for (int64_t i = 0; i < j.size(); ++i) sums[j.begin + i] = static_cast<T>(totals[i]);
  });
}

}  // namespace

template <class T>
void column_sum(Matrix<const T> a, Vector<T> sums) {
  sum_blocks(sums, a.cols, static_cast<double>(a.rows) * static_cast<double>(a.cols),
             [&](Range j, double* totals) { add_columns(a.block(0, j.begin, a.rows, j.size()), totals); });
}

template <class T>
void conv_bgrad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Vector<T> db) {
  const Extents extents{shape[2], shape[3], shape[4]};
  const auto joined = spatial_stride(dy, extents);
  const double work =
      static_cast<double>(shape[0]) * static_cast<double>(shape[1]) * static_cast<double>(volume(extents));
  sum_blocks(db, shape[1], work, [&](Range k, double* totals) {
    for (int64_t n = 0; n < shape[0]; ++n) {
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
