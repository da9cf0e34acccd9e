// Convolutions of one channel a group.
#pragma once

#include "taps.hpp"

namespace fastconv::cpu {

template <class T>
struct Plane {
  T* data;
  int64_t row_stride, column_stride, height, width;
};

// Outputs [rows][columns] with channels last, all of which read the same taps: tap t of output (i, j) is x[i * x_row +
// j * x_column + taps[t].offset], its weights weights[taps[t].number].
struct PixelTap {
  int64_t offset, number;
};
template <class T>
struct PixelRectangle {
  int64_t rows, columns;
  const T* x;
  int64_t x_row, x_column;
  T* y;
  int64_t y_row, y_column;
  const PixelTap* taps;
  int64_t tap_count;
};

template <class T>
struct DepthwiseKernels {
  // Channels last. y = bias + the taps' weights * x, through relu, for some vectors of channels, each of which has
  // weights[taps][lanes] and then a vector of bias.
  void (*pixels)(const PixelRectangle<T>& outputs, int64_t channels, int64_t taps, const T* weights, bool relu);
  // sums[vector of channels][taps][lanes] += y * x, y being the outputs' gradient.
  void (*reduce_pixels)(const PixelRectangle<T>& outputs, int64_t channels, int64_t taps, T* sums);

  // The same for filters of 3x3 with a stride of 1 or 2, the index.
  void (*pixels3x3[2])(Plane<T> y, Plane<const T> x, int64_t pad_top, int64_t pad_left, int64_t channels,
                       const T* weights, bool relu);
  void (*reduce_pixels3x3[2])(Plane<const T> dy, Plane<const T> x, int64_t pad_top, int64_t pad_left, int64_t channels,
                              T* sums);

  // Some planes of side by side columns, `step` apart, filters of 3x3 with a stride of 1 or 2: weights[planes][9], and
  // biases[planes] or null; sums[9] += those of all.
  void (*planes3x3[2])(int64_t planes, Plane<T> y, int64_t y_step, Plane<const T> x, int64_t x_step, int64_t pad_top,
                       int64_t pad_left, const T* weights, const T* biases, bool relu);
  void (*reduce_planes3x3[2])(int64_t planes, Plane<const T> dy, int64_t dy_step, Plane<const T> x, int64_t x_step,
                              int64_t pad_top, int64_t pad_left, T* sums);
  // The input gradient of the one with stride 2, of a plane; without stride it is a planes3x3.
  void (*spread_plane3x3)(Plane<T> dx, Plane<const T> dy, int64_t pad_top, int64_t pad_left, const T* weights);
  // Any filter, a row at a time: out[i * out_step] = bias + the taps' weights * values, through relu, and sums[tap]
  // [lanes] += dy[i * dy_step] * values.
  void (*row)(T* out, int64_t out_step, int64_t count, const T* src, const RowTap* taps, const T* weights,
              int64_t tap_count, int64_t step, T bias, bool relu);
  void (*reduce_row)(T* sums, const T* dy, int64_t dy_step, int64_t count, const T* src, const RowTap* taps,
                     const int32_t* numbers, int64_t tap_count, int64_t step);
};

}  // namespace fastconv::cpu
