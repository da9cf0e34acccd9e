// Winograd's transforms, lanes being channels.
#pragma once

#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

constexpr int kPrefetched = 64;  // elements ahead of the transposed

template <class T>
void planes_to_pixels(T* pixels, int64_t pixel_stride, const T* planes, int64_t channel_stride, int channels,
                      int64_t count) {
  constexpr int kL = kLanes<T>;
  int64_t first = 0;
  for (; first + kL <= count; first += kL) {
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      const T* cells = planes + i * channel_stride + first;
      square[i] = i < channels ? load(cells) : Vector<T>{};
      __builtin_prefetch(cells + kPrefetched);  // more rows than the hardware follows
    }
    transpose<T>(square);
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) store<T>(pixels + (first + i) * pixel_stride, square[i]);
  }
  if (first == count) return;
  Vector<T> square[kL];
#pragma GCC unroll 16
  for (int i = 0; i < kL; ++i) {
    square[i] = Vector<T>{};
    if (i < channels) load_lanes<T>(square[i], planes + i * channel_stride + first, 0, static_cast<int>(count - first));
  }
  transpose<T>(square);
  for (int i = 0; first + i < count; ++i) store<T>(pixels + (first + i) * pixel_stride, square[i]);
}

template <class T>
void pixels_to_planes(T* planes, int64_t channel_stride, const T* pixels, int64_t pixel_stride, int channels,
                      int64_t count) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    const int length = clamp_lanes<T>(count - first);
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) square[i] = i < length ? load(pixels + (first + i) * pixel_stride) : Vector<T>{};
    transpose<T>(square);
    for (int i = 0; i < channels; ++i) {
      if (length == kL) {
        store<T>(planes + i * channel_stride + first, square[i]);
      } else {
        store_lanes<T>(planes + i * channel_stride + first, square[i], length);
      }
    }
  }
}

// The one-dimensional transforms of F(4, 3) (Lavin and Gray, arXiv 1509.09308), of vectors `from` apart to vectors `to`
// apart; two dimensions are columns, then rows. They interpolate at the points 0, a, -a, b, -b and infinity. The usual
// points 0, 1, -1, 2, -2 save some multiplications and round four times worse.
template <class T>
constexpr T kA = static_cast<T>(0.75);
template <class T>
constexpr T kB = static_cast<T>(1.5);
template <class T>
constexpr T kA2 = kA<T> * kA<T>;
template <class T>
constexpr T kB2 = kB<T> * kB<T>;

template <class T>
void winograd_input_1d(const Vector<T>* d, int from, Vector<T>* v, int to) {
  const Vector<T> d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
  const Vector<T> even_a = d4 - kB2<T> * d2, odd_a = kA<T> * (d3 - kB2<T> * d1);
  const Vector<T> even_b = d4 - kA2<T> * d2, odd_b = kB<T> * (d3 - kA2<T> * d1);
  v[0] = kA2<T> * kB2<T> * d0 - (kA2<T> + kB2<T>)*d2 + d4;
  v[to] = even_a + odd_a;
  v[2 * to] = even_a - odd_a;
  v[3 * to] = even_b + odd_b;
  v[4 * to] = even_b - odd_b;
  v[5 * to] = kA2<T> * kB2<T> * d1 - (kA2<T> + kB2<T>)*d3 + d5;
}

template <class T>
void winograd_output_1d(const Vector<T>* m, int from, Vector<T>* y, int to) {
  const Vector<T> even_a = m[from] + m[2 * from], odd_a = m[from] - m[2 * from];
  const Vector<T> even_b = m[3 * from] + m[4 * from], odd_b = m[3 * from] - m[4 * from];
  y[0] = m[0] + even_a + even_b;
  y[to] = kA<T> * odd_a + kB<T> * odd_b;
  y[2 * to] = kA2<T> * even_a + kB2<T> * even_b;
  y[3 * to] = kA2<T> * kA<T> * odd_a + kB2<T> * kB<T> * odd_b + m[5 * from];
}

template <class T>
void winograd_filter_1d(const Vector<T>* g, int from, Vector<T>* u, int to) {
  constexpr T kScaleA = 1 / (2 * kA2<T> * (kA2<T> - kB2<T>)), kScaleB = 1 / (2 * kB2<T> * (kB2<T> - kA2<T>));
  const Vector<T> g0 = g[0], g1 = g[from], g2 = g[2 * from];
  const Vector<T> even_a = kScaleA * g0 + kScaleA * kA2<T> * g2, odd_a = kScaleA * kA<T> * g1;
  const Vector<T> even_b = kScaleB * g0 + kScaleB * kB2<T> * g2, odd_b = kScaleB * kB<T> * g1;
  u[0] = 1 / (kA2<T> * kB2<T>)*g0;
  u[to] = even_a + odd_a;
  u[2 * to] = even_a - odd_a;
  u[3 * to] = even_b + odd_b;
  u[4 * to] = even_b - odd_b;
  u[5 * to] = g2;
}

template <class T>
void winograd_gradient_1d(const Vector<T>* y, int from, Vector<T>* m, int to) {
  const Vector<T> y0 = y[0], y1 = y[from], y2 = y[2 * from], y3 = y[3 * from];
  const Vector<T> even_a = y0 + kA2<T> * y2, odd_a = kA<T> * (y1 + kA2<T> * y3);
  const Vector<T> even_b = y0 + kB2<T> * y2, odd_b = kB<T> * (y1 + kB2<T> * y3);
  m[0] = y0;
  m[to] = even_a + odd_a;
  m[2 * to] = even_a - odd_a;
  m[3 * to] = even_b + odd_b;
  m[4 * to] = even_b - odd_b;
  m[5 * to] = y3;
}

template <class T>
void winograd_filter_gradient_1d(const Vector<T>* u, int from, Vector<T>* g, int to) {
  constexpr T kScaleA = 1 / (2 * kA2<T> * (kA2<T> - kB2<T>)), kScaleB = 1 / (2 * kB2<T> * (kB2<T> - kA2<T>));
  const Vector<T> even_a = kScaleA * (u[from] + u[2 * from]), odd_a = kScaleA * kA<T> * (u[from] - u[2 * from]);
  const Vector<T> even_b = kScaleB * (u[3 * from] + u[4 * from]), odd_b = kScaleB * kB<T> * (u[3 * from] - u[4 * from]);
  g[0] = 1 / (kA2<T> * kB2<T>)*u[0] + even_a + even_b;
  g[to] = odd_a + odd_b;
  g[2 * to] = kA2<T> * even_a + kB2<T> * even_b + u[5 * from];
}

template <class T>
void winograd_input(T* v, int64_t stride, const T* d, int64_t row_stride, int64_t column_stride) {
  Vector<T> columns[36], rows[6];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Vector<T> column[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = load(d + i * row_stride + j * column_stride);
    winograd_input_1d<T>(column, 1, columns + j, 6);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    winograd_input_1d<T>(columns + 6 * i, 1, rows, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store<T>(v + (6 * i + j) * stride, rows[j]);
  }
}

template <class T>
void winograd_output(T* y, int64_t row_stride, int64_t column_stride, const T* m, int64_t stride, const T* bias,
                     bool relu) {
  Vector<T> columns[24], row[4];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Vector<T> column[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = load(m + (6 * i + j) * stride);
    winograd_output_1d<T>(column, 1, columns + j, 6);
  }
  const Vector<T> b = load(bias);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    winograd_output_1d<T>(columns + 6 * i, 1, row, 1);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vector<T> value = row[j] + b;
      store<T>(y + i * row_stride + j * column_stride, relu ? (value < 0 ? Vector<T>{} : value) : value);
    }
  }
}

template <class T>
void winograd_gradient(T* e, int64_t stride, const T* dy, int64_t row_stride, int64_t column_stride) {
  Vector<T> columns[24], row[6];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    Vector<T> column[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) column[i] = load(dy + i * row_stride + j * column_stride);
    winograd_gradient_1d<T>(column, 1, columns + j, 4);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    winograd_gradient_1d<T>(columns + 4 * i, 1, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store<T>(e + (6 * i + j) * stride, row[j]);
  }
}

template <class T>
void winograd_filter_gradient(T* g, const T* u, int64_t stride) {
  constexpr int kL = kLanes<T>;
  Vector<T> columns[18], row[3];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Vector<T> column[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = load(u + (6 * i + j) * stride);
    winograd_filter_gradient_1d<T>(column, 1, columns + j, 6);
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    winograd_filter_gradient_1d<T>(columns + 6 * i, 1, row, 1);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) store<T>(g + (3 * i + j) * kL, row[j]);
  }
}

template <class T>
void winograd_filter(T* u, int64_t stride, const T* g, int64_t tap_stride) {
  Vector<T> columns[18], row[6];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    Vector<T> column[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) column[i] = load(g + (3 * i + j) * tap_stride);
    winograd_filter_1d<T>(column, 1, columns + j, 3);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    winograd_filter_1d<T>(columns + 3 * i, 1, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store<T>(u + (6 * i + j) * stride, row[j]);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
