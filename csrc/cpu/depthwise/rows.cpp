// Any filter and any strides: lanes are outputs of a row.
#include <algorithm>
#include <memory>
#include <numeric>

#include "cpu/walk/windows.hpp"
#include "jobs.hpp"
#include "pixels.hpp"

namespace fastconv::cpu::depthwise {
namespace {

template <class T>
class RowsJob final : public Job {
 public:
  RowsJob(const Correlation<T>& c, std::size_t limit)
      : Job(kRows), s_(c.shape), x_(c.x), w_(c.w), finish_(c.finish), y_(c.y), windows_(s_.axis, x_.stride) {
    weights_ = scratch_.each<T>(s_.taps());
    row_weights_ = scratch_.each<T>(s_.taps());
    row_taps_ = scratch_.each<RowTap>(s_.taps());
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    parallel_for(s_.n * s_.k, scratch_.threads(), [&](int64_t plane, int slot) noexcept {
      correlate(plane / s_.k, plane % s_.k, at(weights_, slot), at(row_weights_, slot), at(row_taps_, slot));
    });
  }

 private:
  void correlate(int64_t n, int64_t k, T* weights, T* row_weights, RowTap* row_taps) const noexcept {
    const auto& [depth, height, width] = s_.axis;
    const int64_t c = k / s_.group_k();
    copy_filter(s_, w_, k, weights);
    for (int64_t row = 0; row < depth.out * height.out; ++row) {
      const int64_t z = row / height.out, p = row % height.out;
      int64_t count = 0;
      windows_.for_each_row_tap(z, p, [&](int32_t number) {
        row_weights[count] = weights[number];
        row_taps[count++] = windows_.row_taps()[number];
      });
      depthwise_kernels<T>().row(y_.at(n, k) + z * y_.stride[2] + p * y_.stride[3], y_.stride[4], width.out,
                                 x_.at(n, c) + windows_.origin(z, p, 0), row_taps, row_weights, count,
                                 width.stride * x_.stride[4], finish_.bias_of(k), finish_.relu);
    }
  }

  ConvShape s_;
  Tensor<const T> x_, w_;
  Finish<T> finish_;
  Tensor<T> y_;
  Windows windows_;
  ThreadArray<T> weights_, row_weights_;  // of a filter, and of the taps that a row of outputs reads
  ThreadArray<RowTap> row_taps_;
};

template <class T>
class ReduceRowsJob final : public Job {
 public:
  ReduceRowsJob(const Reduction<T>& r, std::size_t limit)
      : Job(kRows), s_(r.shape), dy_(r.dy), x_(r.x), dw_(r.dw), windows_(s_.axis, x_.stride) {
    sums_ = scratch_.each<T>(s_.taps(), lanes_);
    row_taps_ = scratch_.each<RowTap>(s_.taps());
    numbers_ = scratch_.each<int32_t>(s_.taps());
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    parallel_for(s_.k, scratch_.threads(), [&](int64_t k, int slot) noexcept {
      reduce(k, at(sums_, slot), at(row_taps_, slot), at(numbers_, slot));
    });
  }

 private:
  void reduce(int64_t k, T* sums, RowTap* row_taps, int32_t* numbers) const noexcept {
    const auto& [depth, height, width] = s_.axis;
    const int64_t c = k / s_.group_k();
    std::fill_n(sums, s_.taps() * lanes_, T(0));
    for (int64_t row = 0; row < s_.n * depth.out * height.out; ++row) {
      const int64_t p = row % height.out, z = row / height.out % depth.out, n = row / height.out / depth.out;
      int64_t count = 0;
      windows_.for_each_row_tap(z, p, [&](int32_t number) {
        numbers[count] = number;
        row_taps[count++] = windows_.row_taps()[number];
      });
      depthwise_kernels<T>().reduce_row(sums, dy_.at(n, k) + z * dy_.stride[2] + p * dy_.stride[3], dy_.stride[4],
                                        width.out, x_.at(n, c) + windows_.origin(z, p, 0), row_taps, numbers, count,
                                        width.stride * x_.stride[4]);
    }
    for_each_cell(dw_, k, 0, filter_extents(s_), {0, s_.taps()}, [&](T& cell, int64_t tap) {
      cell = std::accumulate(sums + tap * lanes_, sums + (tap + 1) * lanes_, T(0));
    });
  }

  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
  Windows windows_;
  int64_t lanes_ = vector_lanes<T>();
  ThreadArray<T> sums_;           // [tap][lanes]
  ThreadArray<RowTap> row_taps_;  // those that a row of outputs reads, and their numbers
  ThreadArray<int32_t> numbers_;
};

}  // namespace

template <class T>
std::unique_ptr<const Job> rows_job(const Correlation<T>& c, std::size_t limit) {
  return std::make_unique<RowsJob<T>>(c, limit);
}

template <class T>
std::unique_ptr<const Job> rows_job(const Reduction<T>& r, std::size_t limit) {
  return std::make_unique<ReduceRowsJob<T>>(r, limit);
}

#define FASTCONV_INSTANTIATE(T)                                                     \
  template std::unique_ptr<const Job> rows_job(const Correlation<T>&, std::size_t); \
  template std::unique_ptr<const Job> rows_job(const Reduction<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
