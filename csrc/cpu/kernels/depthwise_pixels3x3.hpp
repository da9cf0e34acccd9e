// Depthwise convolutions with filters of 3x3, channels last: lanes are channels.
#pragma once

#include "depthwise3x3.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// What the three taps of a filter row read for one output, lanes being channels; zero in the padding. kInside: none
// lies there.
template <class T, int kStride, bool kInside>
class PixelOfTaps {
 public:
  PixelOfTaps(int64_t q, int64_t pad, const Plane<const T>& x, const Lanes<T>& channels)
      : offset_((q * kStride - pad) * x.column_stride), step_(x.column_stride), channels_(channels) {
    for (int s = 0; s < 3; ++s) {
      const int64_t cell = q * kStride - pad + s;
      inside_[s] = kInside || (cell >= 0 && cell < x.width);
    }
  }

  void read(const T* row, bool real, Vector<T>* taps) const {
    row += offset_;
#pragma GCC unroll 3
    for (int s = 0; s < 3; ++s) taps[s] = channels_.when(real && inside_[s]).load_from(row + s * step_);
  }
  // The next rows are too far away for the hardware to foresee.
  void prefetch(const T* row) const {
#pragma GCC unroll 2
    for (int s = 0; s < kStride; ++s) __builtin_prefetch(row + offset_ + (s + 1) * step_);
  }

 private:
  int64_t offset_, step_;
  Lanes<T> channels_;
  bool inside_[3];
};

// Channels last, memory is walked in order: eight pixels of some rows at a time, in these the vectors of channels.
// Calls visit<rows, inside>(y from row and channel c on, input rows from channel c on, c, range of q).
template <class T, int kStride, class Y, class Visit>
[[gnu::always_inline]] inline void by_pixels(const Plane<Y>& y, const Plane<const T>& x, int64_t pad_top,
                                             int64_t channels, Visit visit) {
  by_threes(y.height, [&]<int kThree>(int64_t p) {
    const InputRows<T> rows = input_rows<T>(x, p * kStride - pad_top);
    if_inside<T, kStride, kThree>(rows, [&]<int kRows, bool kInside>() {
      for (int64_t q = 0; q < y.width; q += 8) {
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
          const Plane<Y> outputs{y.data + p * y.row_stride + c, y.row_stride, y.column_stride, y.height, y.width};
          visit.template operator()<kRows, kInside>(outputs, {rows.data + c, rows.step, rows.begin, rows.end}, c, q,
                                                    q + 8 < y.width ? q + 8 : y.width);
        }
      }
    });
  });
}

// Calls visit(q, taps) for some neighbouring outputs of a row.
template <class T, int kStride, class Visit>
[[gnu::always_inline]] inline void for_each_pixel(int64_t q, int64_t end, int64_t pad, const Plane<const T>& x,
                                                  const Lanes<T>& channels, Visit visit) {
  for (; q < end; ++q) {
    const int64_t cell = q * kStride - pad;
    if (cell >= 0 && cell + 2 < x.width) {
      visit(q, PixelOfTaps<T, kStride, true>(q, pad, x, channels));
    } else {
      visit(q, PixelOfTaps<T, kStride, false>(q, pad, x, channels));
    }
  }
}

template <class T, int kStride, int kRows, bool kInside>
void some_pixels3x3(Plane<T> y, Plane<const T> x, int64_t pad_left, InputRows<T> rows, int64_t begin, int64_t end,
                    Lanes<T> channels, const T* weights, bool relu) {
  Vector<T> w[10];
#pragma GCC unroll 10
  for (int i = 0; i < 10; ++i) w[i] = load(weights + i * kLanes<T>);
  for_each_pixel<T, kStride>(begin, end, pad_left, x, channels, [&](int64_t q, const auto& taps) {
    correlate3x3<T, kStride, kRows, kInside>(y.data + q * y.column_stride, y.row_stride, channels, rows, taps, w, w[9],
                                             relu);
  });
}

template <class T, int kStride>
void pixels3x3(Plane<T> y, Plane<const T> x, int64_t pad_top, int64_t pad_left, int64_t channels, const T* weights,
               bool relu) {
  by_pixels<T, kStride>(
      y, x, pad_top, channels,
      [&]<int kRows, bool kInside>(Plane<T> outputs, InputRows<T> rows, int64_t c, int64_t q, int64_t end) {
        some_pixels3x3<T, kStride, kRows, kInside>(outputs, x, pad_left, rows, q, end,
                                                   {0, clamp_lanes<T>(channels - c)}, weights + c * 10, relu);
      });
}

template <class T, int kStride, int kRows, bool kInside>
void reduce_some_pixels3x3(Plane<const T> dy, Plane<const T> x, int64_t pad_left, InputRows<T> rows, int64_t begin,
                           int64_t end, Lanes<T> channels, T* sums) {
  Vector<T> sum[9];
#pragma GCC unroll 9
  for (int i = 0; i < 9; ++i) sum[i] = load(sums + i * kLanes<T>);
  for_each_pixel<T, kStride>(begin, end, pad_left, x, channels, [&](int64_t q, const auto& taps) {
    reduce3x3<T, kStride, kRows, kInside>(dy.data + q * dy.column_stride, dy.row_stride, channels, rows, taps, sum);
  });
#pragma GCC unroll 9
  for (int i = 0; i < 9; ++i) store<T>(sums + i * kLanes<T>, sum[i]);
}

template <class T, int kStride>
void reduce_pixels3x3(Plane<const T> dy, Plane<const T> x, int64_t pad_top, int64_t pad_left, int64_t channels,
                      T* sums) {
  by_pixels<T, kStride>(
      dy, x, pad_top, channels,
      [&]<int kRows, bool kInside>(Plane<const T> gradients, InputRows<T> rows, int64_t c, int64_t q, int64_t end) {
        reduce_some_pixels3x3<T, kStride, kRows, kInside>(gradients, x, pad_left, rows, q, end,
                                                          {0, clamp_lanes<T>(channels - c)}, sums + c * 9);
      });
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
