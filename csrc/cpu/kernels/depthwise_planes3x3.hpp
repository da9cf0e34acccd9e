// Depthwise convolutions with filters of 3x3, in planes: lanes are outputs of a row.
#pragma once

#include "depthwise3x3.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// What the three taps of a filter row read for the outputs [first, first + kLanes) of a row; zero in the padding and
// past the last output.
template <class T, int kStride>
class RowOfTaps {
 public:
  RowOfTaps() = default;
  RowOfTaps(int64_t first, int64_t outputs, int64_t pad, int64_t width)
      : cell_(first * kStride - pad),
        lanes_{lanes_inside<T>(cell_, width, last(first, outputs) + kStride),
               kStride == 1 ? lanes_inside<T>(cell_ + 1, width, last(first, outputs) + 1)
                            : lanes_inside<T>(cell_ + kLanes<T>, width, last(first, outputs) + 2 - kLanes<T>),
               lanes_inside<T>(cell_ + 2, width, last(first, outputs) + 1),
               lanes_inside<T>(cell_ + 2 + kLanes<T>, width, last(first, outputs) + 1 - kLanes<T>)} {}

  // Zeros unless the row is real.
  [[gnu::always_inline]] void read(const T* row, bool real, Vector<T>* taps) const {
    row += cell_;
    const auto load = [&](int lanes, int at) { return lanes_[lanes].when(real).load_from(row + at); };
    if constexpr (kStride == 1) {
#pragma GCC unroll 3
      for (int s = 0; s < 3; ++s) taps[s] = load(s, s);
    } else {
      const Vector<T> low = load(0, 0), high = load(1, kLanes<T>);
      taps[0] = even_lanes<T>(low, high);
      taps[1] = odd_lanes<T>(low, high);
      taps[2] = even_lanes<T>(load(2, 2), load(3, 2 + kLanes<T>));
    }
  }

  void prefetch(const T* row) const { fetch_ahead(row + cell_, kStride); }

 private:
  // The cell that the first tap of the last output reads, counted from the first output's.
  static int64_t last(int64_t first, int64_t outputs) { return (outputs - first - 1) * kStride; }

  int64_t cell_;
  Lanes<T> lanes_[4];  // of the taps, or of the two vectors with taps 0 and 1 and the two with tap 2
};

// Lanes [0, width) of a row of one plane, or of two, `step` apart, the second one's from the middle on.
template <class T, int kPlanes>
class PlaneLanes {
 public:
  PlaneLanes(int64_t width, int64_t step) : step_(step - kLanes<T> / 2) {
    for (int i = 0; i < kPlanes; ++i) {
      const int first = i * kLanes<T> / 2;
      lanes_[i] = Lanes<T>(first, first + static_cast<int>(width));
    }
  }
  PlaneLanes when(bool some) const {
    PlaneLanes lanes = *this;
    for (int i = 0; i < kPlanes; ++i) lanes.lanes_[i] = lanes_[i].when(some);
    return lanes;
  }
  [[gnu::always_inline]] Vector<T> load_from(const T* row) const {
    const Vector<T> v = lanes_[0].load_from(row);
    if constexpr (kPlanes == 1) return v;
    using Bits = decltype(v < v);
    const Vector<T> second = lanes_[kPlanes - 1].load_from(row + step_);
    return reinterpret_cast<Vector<T>>(reinterpret_cast<Bits>(v) | reinterpret_cast<Bits>(second));
  }
  [[gnu::always_inline]] void store_to(T* row, Vector<T> v) const {
    lanes_[0].store_to(row, v);
    if constexpr (kPlanes == 2) lanes_[1].store_to(row + step_, v);
  }

 private:
  int64_t step_;
  Lanes<T> lanes_[kPlanes];
};

// What the taps read of rows that leave lanes of PlaneLanes free: one load, whose last lane is zero, and a shuffle for
// each tap, where the loads above would mostly cross a cache line.
template <class T, int kStride, int kPlanes>
class ShortRowsOfTaps {
 public:
  ShortRowsOfTaps(int64_t outputs, int64_t pad, int64_t width, int64_t step) : cells_(width, step) {
    using Index = decltype(Vector<T>{} < Vector<T>{});
    Index lane{};
    for (int i = 0; i < kLanes<T>; ++i) lane[i] = i % (kLanes<T> / kPlanes);
    for (int i = 0; i < kLanes<T>; ++i) index_[0][i] = i - lane[i];
    const Index first = index_[0];
    for (int s = 0; s < 3; ++s) {
      const Index cell = lane * kStride + (s - static_cast<int>(pad));
      const Index real = (lane < static_cast<int>(outputs)) & (cell >= 0) & (cell < static_cast<int>(width));
      index_[s] = real ? first + cell : Index{} + (kLanes<T> - 1);
    }
  }

  void read(const T* row, bool real, Vector<T>* taps) const {
    const Vector<T> cells = cells_.when(real).load_from(row);
#pragma GCC unroll 3
    for (int s = 0; s < 3; ++s) taps[s] = __builtin_shuffle(cells, index_[s]);
  }

  void prefetch(const T* row) const { fetch_ahead(row, 1); }

 private:
  PlaneLanes<T, kPlanes> cells_;
  decltype(Vector<T>{} < Vector<T>{}) index_[3];
};

// Calls body<strips>(first column) for the columns of outputs, a strip being a vector of them. Of wide planes, strips
// are taken together, row by row, so that memory is walked in order; narrow ones stay in the first-level cache, and one
// strip's taps in registers.
template <class T, class Body>
[[gnu::always_inline]] inline void by_strips(int64_t width, Body body) {
  constexpr int kStrips = 8;  // vectors of outputs that are taken together
  if (width <= 2 * kLanes<T>) {
    for (int64_t q = 0; q < width; q += kLanes<T>) body.template operator()<1>(q);
  } else {
    for (int64_t q = 0; q < width; q += kStrips * kLanes<T>) body.template operator()<kStrips>(q);
  }
}

// Calls visit<rows, inside>(first row, input rows).
template <class T, int kStride, class Y, class Visit>
[[gnu::always_inline]] inline void by_rows3x3(const Plane<Y>& y, const Plane<const T>& x, int64_t pad_top,
                                              Visit visit) {
  by_threes(y.height, [&]<int kThree>(int64_t p) {
    const InputRows<T> rows = input_rows<T>(x, p * kStride - pad_top);
    if_inside<T, kStride, kThree>(
        rows, [&]<int kRows, bool kInside>() { visit.template operator()<kRows, kInside>(p, rows); });
  });
}

// Calls visit<rows, inside>(first row, first column, outputs of a strip, input rows, taps).
template <class T, int kStride, class Y, class Visit>
[[gnu::always_inline]] inline void by_strips3x3(const Plane<Y>& y, const Plane<const T>& x, int64_t pad_top,
                                                int64_t pad_left, Visit visit) {
  by_strips<T>(y.width, [&]<int kStrips>(int64_t begin) {
    const auto taps_at = [&](int64_t q) { return RowOfTaps<T, kStride>(q, y.width, pad_left, x.width); };
    const auto outputs_at = [&](int64_t q) { return lanes_inside<T>(0, y.width - q, kLanes<T>); };
    if constexpr (kStrips == 1) {
      const RowOfTaps<T, kStride> taps = taps_at(begin);
      const Lanes<T> outputs = outputs_at(begin);
      by_rows3x3<T, kStride>(y, x, pad_top, [&]<int kRows, bool kInside>(int64_t p, const InputRows<T>& rows) {
        visit.template operator()<kRows, kInside>(p, begin, outputs, rows, taps);
      });
    } else {
      RowOfTaps<T, kStride> taps[kStrips];
      Lanes<T> outputs[kStrips];
      int strips = 0;
      for (int64_t q = begin; strips < kStrips && q < y.width; q += kLanes<T>, ++strips) {
        taps[strips] = taps_at(q);
        outputs[strips] = outputs_at(q);
      }
      by_rows3x3<T, kStride>(y, x, pad_top, [&]<int kRows, bool kInside>(int64_t p, const InputRows<T>& rows) {
        for (int i = 0; i < strips; ++i) {
          visit.template operator()<kRows, kInside>(p, begin + i * kLanes<T>, outputs[i], rows, taps[i]);
        }
      });
    }
  });
}

template <class P>
P plane_at(const P& first, int64_t i, int64_t step) {
  return {first.data + i * step, first.row_stride, first.column_stride, first.height, first.width};
}

// Calls visit<planes>(number of the first, y's plane, x's plane, walk) for one plane, or two, after another:
// walk(body) calls body<rows, inside>(first row, first column, outputs, input rows, taps).
template <class T, int kStride, int kPlanes, class Y, class Visit>
[[gnu::always_inline]] inline void by_short_planes3x3(int64_t begin, int64_t end, const Plane<Y>& y, int64_t y_step,
                                                      const Plane<const T>& x, int64_t x_step, int64_t pad_top,
                                                      int64_t pad_left, Visit visit) {
  const ShortRowsOfTaps<T, kStride, kPlanes> taps(y.width, pad_left, x.width, x_step);
  const PlaneLanes<T, kPlanes> outputs(y.width, y_step);
  for (int64_t i = begin; i < end; i += kPlanes) {
    const Plane<Y> to = plane_at(y, i, y_step);
    const Plane<const T> from = plane_at(x, i, x_step);
    visit.template operator()<kPlanes>(i, to, [&](auto body) {
      by_rows3x3<T, kStride>(to, from, pad_top, [&]<int kRows, bool kInside>(int64_t p, const InputRows<T>& rows) {
        body.template operator()<kRows, kInside>(p, 0, outputs, rows, taps);
      });
    });
  }
}
template <class T, int kStride, class Y, class Visit>
[[gnu::always_inline]] inline void by_planes3x3(int64_t planes, const Plane<Y>& y, int64_t y_step,
                                                const Plane<const T>& x, int64_t x_step, int64_t pad_top,
                                                int64_t pad_left, Visit visit) {
  if constexpr (kLanes<T> >= 8) {  // planes seldom leave lanes of shorter vectors free
    constexpr int kHalf = kLanes<T> / 2;
    if (x.width < kLanes<T> && y.width <= kLanes<T>) {
      const int64_t paired = x.width < kHalf && y.width <= kHalf ? planes / 2 * 2 : 0;
      if (paired > 0) by_short_planes3x3<T, kStride, 2>(0, paired, y, y_step, x, x_step, pad_top, pad_left, visit);
      if (paired < planes)
        by_short_planes3x3<T, kStride, 1>(paired, planes, y, y_step, x, x_step, pad_top, pad_left, visit);
      return;
    }
  }
  for (int64_t i = 0; i < planes; ++i) {
    const Plane<Y> to = plane_at(y, i, y_step);
    const Plane<const T> from = plane_at(x, i, x_step);
    visit.template operator()<1>(i, to,
                                 [&](auto body) { by_strips3x3<T, kStride>(to, from, pad_top, pad_left, body); });
  }
}

template <class T, int kStride>
void planes3x3(int64_t planes, Plane<T> y, int64_t y_step, Plane<const T> x, int64_t x_step, int64_t pad_top,
               int64_t pad_left, const T* weights, const T* biases, bool relu) {
  decltype(Vector<T>{} < Vector<T>{}) lane{};
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = i;
  by_planes3x3<T, kStride>(
      planes, y, y_step, x, x_step, pad_top, pad_left, [&]<int kPlanes>(int64_t plane, const Plane<T>& to, auto walk) {
        const auto of_planes = [&](const T* values, int64_t step) {
          const Vector<T> first = Vector<T>{} + values[plane * step];
          return kPlanes == 1 || lane < kLanes<T> / 2 ? first : Vector<T>{} + values[(plane + kPlanes - 1) * step];
        };
        Vector<T> w[9];
#pragma GCC unroll 9
        for (int i = 0; i < 9; ++i) w[i] = of_planes(weights + i, 9);
        const Vector<T> bias = biases != nullptr ? of_planes(biases, 1) : Vector<T>{};
        walk([&]<int kRows, bool kInside>(int64_t p, int64_t q, const auto& outputs, const InputRows<T>& rows,
                                          const auto& taps) {
          correlate3x3<T, kStride, kRows, kInside>(to.data + p * to.row_stride + q, to.row_stride, outputs, rows, taps,
                                                   w, bias, relu);
        });
      });
}

template <class T, int kStride>
void reduce_planes3x3(int64_t planes, Plane<const T> dy, int64_t dy_step, Plane<const T> x, int64_t x_step,
                      int64_t pad_top, int64_t pad_left, T* sums) {
  constexpr int kPadded = (9 + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  Vector<T> sum[kPadded] = {};
  by_planes3x3<T, kStride>(planes, dy, dy_step, x, x_step, pad_top, pad_left,
                           [&]<int kPlanes>(int64_t, const Plane<const T>& from, auto walk) {
                             walk([&]<int kRows, bool kInside>(int64_t p, int64_t q, const auto& outputs,
                                                               const InputRows<T>& rows, const auto& taps) {
                               reduce3x3<T, kStride, kRows, kInside>(from.data + p * from.row_stride + q,
                                                                     from.row_stride, outputs, rows, taps, sum);
                             });
                           });
#pragma GCC unroll 16
  for (int first = 0; first < 9; first += kLanes<T>) {
    const int count = 9 - first < kLanes<T> ? 9 - first : kLanes<T>;
    store_lanes<T>(sums + first, load_first<T>(sums + first, count) + lane_sums<T>(sum + first), count);
  }
}

// dx[2m - pad] sums the taps 0 and 2 of dy[m] and dy[m - 1], dx[2m + 1 - pad] the tap 1 of dy[m]; rows alike.
template <class T>
void spread_plane3x3(Plane<T> dx, Plane<const T> dy, int64_t pad_top, int64_t pad_left, const T* weights) {
  constexpr int kL = kLanes<T>;
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int i = 0; i < 9; ++i) w[i] = Vector<T>{} + weights[i];
  by_strips<T>((dx.width + pad_left + 1) / 2, [&]<int kStrips>(int64_t begin) {
    struct {
      Lanes<T> same, before, first, second;
    } strips[kStrips];
    int count = 0;
    int64_t m = begin;
    do {
      const int64_t column = 2 * m - pad_left;
      strips[count] = {lanes_inside<T>(m, dy.width, kL), lanes_inside<T>(m - 1, dy.width, kL),
                       lanes_inside<T>(column, dx.width, kL), lanes_inside<T>(column + kL, dx.width, kL)};
      m += kL;
    } while (++count < kStrips && 2 * m - pad_left < dx.width);
    for (int64_t h = 0; h < dx.height; ++h) {
      for (int i = 0; i < count; ++i) {
        const auto& [same, before, first, second] = strips[i];
        const int64_t column = begin + i * kL;
        Vector<T> even{}, odd{};
        const auto add = [&](int64_t p, const Vector<T>* row_weights) {
          if (p < 0 || p >= dy.height) return;
          const T* row = dy.data + p * dy.row_stride + column;
          const Vector<T> gradient = same.load_from(row);
          even += row_weights[0] * gradient + row_weights[2] * before.load_from(row - 1);
          odd += row_weights[1] * gradient;
        };
        const int64_t row = h + pad_top;
        if (row % 2 == 0) {
          add(row / 2, w);
          add(row / 2 - 1, w + 6);
        } else {
          add(row / 2, w + 3);
        }
        T* out = dx.data + h * dx.row_stride + 2 * column - pad_left;
        first.store_to(out, interleave<T>(even, odd, false));
        second.store_to(out + kL, interleave<T>(even, odd, true));
      }
    }
  });
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
