// Sums: the bias gradients of convolution and dense layers. float32 data adds up in float64, always in the same order.
#include <algorithm>

#include "patches.hpp"
#include "thread_pool.hpp"
#include "workspace.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kParts = 16;       // of the rows, summed apart and added in order
constexpr int64_t kColumns = 64;     // sums of one task: some cache lines of each row
constexpr int64_t kFewColumns = 16;  // where there are few parts
constexpr int64_t kSide = 4;         // rows that are added before their sum is

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
  const auto value = [&](int64_t i, int64_t j) {
    return static_cast<double>(a.data[i * a.row_stride + j * a.col_stride]);
  };
  int64_t i = 0;
  for (; i + kSide <= a.rows; i += kSide) {
    for (int64_t j = 0; j < a.cols; ++j)
      totals[j] += (value(i, j) + value(i + 1, j)) + (value(i + 2, j) + value(i + 3, j));
  }
  for (; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) totals[j] += value(i, j);
  }
}

// sums[j] is the total of column j: add(rows, columns, totals) of each part of the rows.
template <class T, class Add>
void sum_parts(const Vector<T>& sums, int64_t rows, int64_t cols, double work, Add add) {
  const Blocks columns(cols, rows < 4 ? kFewColumns : kColumns), parts(rows, ceil_div(rows, kParts));
  const Workspace memory(array_bytes(parts.count, columns.count * kColumns, sizeof(double)));
  const auto totals_of = [&](int64_t part, int64_t block) {
    return memory.at<double>(0) + (part * columns.count + block) * kColumns;
  };
  parallel_for(parts.count * columns.count, work < 1e5 ? 1 : num_threads(), [&](int64_t task, int) {
    const int64_t part = task / columns.count, block = task % columns.count;
    double* totals = totals_of(part, block);
    std::fill_n(totals, kColumns, 0.0);
    add(parts[part], columns[block], totals);
  });
  for (int64_t j = 0; j < cols; ++j) {
    double total = 0;
    for (int64_t part = 0; part < parts.count; ++part) total += totals_of(part, j / columns.size)[j % columns.size];
    sums[j] = static_cast<T>(total);
  }
}

}  // namespace

template <class T>
void column_sum(Matrix<const T> a, Vector<T> sums) {
  sum_parts(
      sums, a.rows, a.cols, static_cast<double>(a.rows) * static_cast<double>(a.cols),
      [&](Range i, Range j, double* totals) { add_columns(a.block(i.begin, j.begin, i.size(), j.size()), totals); });
}

template <class T>
void conv_bgrad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Vector<T> db) {
  const Extents extents{shape[2], shape[3], shape[4]};
  const auto joined = spatial_stride(dy, extents);
  const double work =
      static_cast<double>(shape[0]) * static_cast<double>(shape[1]) * static_cast<double>(volume(extents));
  sum_parts(db, shape[0], shape[1], work, [&](Range images, Range k, double* totals) {
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
