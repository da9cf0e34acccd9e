// What the averages and their gradient share: sums of rows, divisors, boxes of pixels.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "cpu/runtime/isa.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "threads.hpp"

namespace fastconv::cpu::average {

using tuning::pool::kLineCells, tuning::pool::kTaskCells;

// out[count] = the sum of weighted rows, whose elements are `step` apart.
template <class T>
class RowSum {
 public:
  RowSum(T* out, int64_t count, int64_t step) : out_(out), count_(count), step_(step) {}
  void add(const T* row, T weight) {
    if (size_ == kRows) flush(1);
    rows_[size_] = row;
    weights_[size_++] = weight;
  }
  void finish(T divisor) { flush(divisor); }

 private:
  static constexpr int kRows = tuning::pool::kRowsTogether;

  void flush(T divisor) {
    sum_kernels<T>().rows(out_, count_, begun_ ? out_ : nullptr, rows_, weights_, size_, step_, divisor);
    begun_ = true;
    size_ = 0;
  }

  T* out_;
  int64_t count_, step_;
  bool begun_ = false;
  int size_ = 0;
  const T* rows_[kRows];
  T weights_[kRows];
};

inline int64_t whole_vectors(int64_t count) { return ceil_div(count, kMaxLanes) * kMaxLanes; }

// What the sums along each axis are divided by; the divisor of a window is the product. Short axes have tables.
template <class T>
class Divisors {
 public:
  Divisors(const PoolShape& s, Divisor divisor) : axis_(s.axis), divisor_(divisor) {
    for (std::size_t i = 0; i < 3; ++i) {
      if (s.axis[i].out > kLineCells) continue;
      tables_[i].assign(static_cast<std::size_t>(whole_vectors(s.axis[i].out) + kMaxLanes), T(1));
      for (int64_t o = 0; o < s.axis[i].out; ++o) tables_[i][static_cast<std::size_t>(o)] = of(i, o);
    }
  }

  T operator()(std::size_t axis, int64_t o) const {
    return tables_[axis].empty() ? of(axis, o) : tables_[axis][static_cast<std::size_t>(o)];
  }

  // Those of the last axis, as if their number were a multiple of kMaxLanes: in the table, or in the buffer.
  const T* columns(Range q, T* buffer) const {
    if (!tables_[2].empty()) return tables_[2].data() + q.begin;
    const Axis& width = axis_[2];
    const Range inner = width.even ? Range{0, 0} : width.inner_outputs();  // whose windows are whole
    const int64_t begin = std::clamp(inner.begin, q.begin, q.end), end = std::clamp(inner.end, begin, q.end);
    for (int64_t o = q.begin; o < begin; ++o) buffer[o - q.begin] = of(2, o);
    if (begin < end) std::fill(buffer + (begin - q.begin), buffer + (end - q.begin), of(2, begin));
    for (int64_t o = end; o < q.end; ++o) buffer[o - q.begin] = of(2, o);
    std::fill(buffer + q.size(), buffer + whole_vectors(q.size()), T(1));
    return buffer;
  }
  // Elements of the buffer for so many outputs.
  int64_t buffer_size(int64_t outputs) const { return tables_[2].empty() ? whole_vectors(outputs) : 0; }

 private:
  T of(std::size_t axis, int64_t o) const {
    if (divisor_.fixed != 0) return static_cast<T>(axis == 2 ? divisor_.fixed : 1);
    return static_cast<T>(std::max<int64_t>(1, axis_[axis].window_size(o, divisor_.count_padding)));
  }

  std::array<Axis, 3> axis_;
  Divisor divisor_;
  std::array<std::vector<T>, 3> tables_;
};

// Axes that one window spans, and that lie in memory as one, are walked as one, of at most `limit` cells.
inline void join_spanned(PoolShape& s, const std::array<int64_t, 5>& stride, int64_t limit) {
  const auto spanned = [](const Axis& a) { return a.out == 1 && a.cells(0).size() == a.in; };
  Axis& width = s.axis[2];
  for (const std::size_t axis : {1, 0}) {
    Axis& outer = s.axis[axis];
    const bool joined = outer.in == 1 || stride[axis + 2] == width.in * stride[4];
    if (!spanned(width) || !spanned(outer) || !joined || outer.in * width.in > limit) return;
    width = {.in = outer.in * width.in, .even = true};
    outer = {};
  }
}

// Sums boxes of pixels with channels last: to[n, o, :] = the sum of the pixels in boxes(axis, o) along each axis, each
// times weight(pixel), divided by divisor(o).
template <class T, class Boxes, class Weight, class Quotient>
void sum_pixels(const PoolShape& s, const Tensor<const T>& from, const Tensor<T>& to, const Extents& extents,
                Boxes boxes, Weight weight, Quotient divisor) {
  const Blocks blocks(s.c, tuning::pool::kTaskChannels);
  parallel_for(s.n * extents[0] * extents[1] * blocks.count, pool_threads(s), [&](int64_t task, int) noexcept {
    const Range channels = blocks[task % blocks.count];
    const int64_t row = task / blocks.count, j = row % extents[1], i = row / extents[1] % extents[0],
                  n = row / extents[1] / extents[0];
    const T* image = from.at(n, channels.begin);
    T* out = to.at(n, channels.begin) + i * to.stride[2] + j * to.stride[3];
    const Range is = boxes(0, i), js = boxes(1, j);
    for (int64_t k = 0; k < extents[2]; ++k, out += to.stride[4]) {
      const Range ks = boxes(2, k);
      RowSum<T> sum(out, channels.size(), 1);
      for (int64_t a = is.begin; a < is.end; ++a) {
        for (int64_t b = js.begin; b < js.end; ++b) {
          const T* pixel = image + a * from.stride[2] + b * from.stride[3] + ks.begin * from.stride[4];
          for (int64_t c = ks.begin; c < ks.end; ++c, pixel += from.stride[4]) sum.add(pixel, weight(a, b, c));
        }
      }
      sum.finish(divisor(i, j, k));
    }
  });
}

template <class T>
bool channels_last(const PoolShape& s, const Tensor<const T>& from, const Tensor<T>& to) {
  return s.c > 1 && from.stride[1] == 1 && to.stride[1] == 1;
}

}  // namespace fastconv::cpu::average
