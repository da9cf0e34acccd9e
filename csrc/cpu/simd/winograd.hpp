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

// The transforms of F(4x4, 3x3) and F(2x2, 5x5) (Lavin and Gray, arXiv 1509.09308): filters and gradients are
// polynomials of kCount coefficients, 3 + 4 or 5 + 2 of them, whose product is known by its values at the points 0, a,
// -a, b, -b and infinity. In two dimensions columns are transformed, then rows. The usual points 0, 1, -1, 2, -2 save
// some multiplications and round four times worse.
template <class T>
constexpr T kA = static_cast<T>(0.75);
template <class T>
constexpr T kB = static_cast<T>(1.5);
template <class T>
constexpr T kA2 = kA<T> * kA<T>;
template <class T>
constexpr T kB2 = kB<T> * kB<T>;
constexpr int kPoints = 6;
template <int kTaps>
constexpr int kOutputs = kPoints + 1 - kTaps;

template <class T>
constexpr T power(T base, int exponent) {
  return exponent == 0 ? 1 : base * power(base, exponent - 1);
}

// What the values at 0, at a and -a, and at b and -b are multiplied by.
template <class T>
struct Weights {
  T zero, a, b;
};
template <class T>
constexpr Weights<T> kNoWeights{1, 1, 1};
template <class T>
constexpr Weights<T> kFilterWeights{1 / (kA2<T> * kB2<T>), 1 / (2 * kA2<T> * (kA2<T> - kB2<T>)),
                                    1 / (2 * kB2<T> * (kB2<T> - kA2<T>))};

// The values of kCount coefficients, `from` vectors apart, at the points, `to` vectors apart.
template <class T, int kCount>
[[gnu::always_inline]] inline void to_points(Weights<T> w, const Vector<T>* x, int from, Vector<T>* v, int to) {
  Vector<T> at_a[2] = {}, at_b[2] = {};  // the even powers, the odd ones
#pragma GCC unroll 5
  for (int i = 0; i < kCount; ++i) {
    at_a[i % 2] += (w.a * power(kA<T>, i)) * x[i * from];
    at_b[i % 2] += (w.b * power(kB<T>, i)) * x[i * from];
  }
  v[0] = w.zero * x[0];
  v[to] = at_a[0] + at_a[1];
  v[2 * to] = at_a[0] - at_a[1];
  v[3 * to] = at_b[0] + at_b[1];
  v[4 * to] = at_b[0] - at_b[1];
  v[5 * to] = x[(kCount - 1) * from];
}

// Its adjoint.
template <class T, int kCount>
[[gnu::always_inline]] inline void from_points(Weights<T> w, const Vector<T>* v, int from, Vector<T>* x, int to) {
  const Vector<T> at_a[2] = {v[from] + v[2 * from], v[from] - v[2 * from]};
  const Vector<T> at_b[2] = {v[3 * from] + v[4 * from], v[3 * from] - v[4 * from]};
#pragma GCC unroll 5
  for (int i = 0; i < kCount; ++i) {
    Vector<T> sum = (w.a * power(kA<T>, i)) * at_a[i % 2] + (w.b * power(kB<T>, i)) * at_b[i % 2];
    if (i == 0) sum += w.zero * v[0];
    if (i == kCount - 1) sum += v[5 * from];
    x[i * to] = sum;
  }
}

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
void winograd_input_gradient_1d(const Vector<T>* v, int from, Vector<T>* d, int to) {
  const Vector<T> even_a = v[from] + v[2 * from], odd_a = kA<T> * (v[from] - v[2 * from]);
  const Vector<T> even_b = v[3 * from] + v[4 * from], odd_b = kB<T> * (v[3 * from] - v[4 * from]);
  const Vector<T> zero = v[0], infinity = v[5 * from];
  d[0] = kA2<T> * kB2<T> * zero;
  d[to] = kA2<T> * kB2<T> * infinity - kB2<T> * odd_a - kA2<T> * odd_b;
  d[2 * to] = -(kA2<T> + kB2<T>)*zero - kB2<T> * even_a - kA2<T> * even_b;
  d[3 * to] = odd_a + odd_b - (kA2<T> + kB2<T>)*infinity;
  d[4 * to] = zero + even_a + even_b;
  d[5 * to] = infinity;
}

template <class T>
void winograd_input_gradient(T* d, int64_t row_stride, int64_t column_stride, const T* v, int64_t stride) {
  Vector<T> columns[36], row[6];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Vector<T> column[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = load(v + (6 * i + j) * stride);
    winograd_input_gradient_1d<T>(column, 1, columns + j, 6);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    winograd_input_gradient_1d<T>(columns + 6 * i, 1, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      T* cell = d + i * row_stride + j * column_stride;
      store<T>(cell, load(cell) + row[j]);
    }
  }
}

// [kCount][kCount] of x to [6][6] points, those `stride` apart.
template <class T, int kCount>
[[gnu::always_inline]] inline void square_to_points(Weights<T> w, T* v, int64_t stride, const T* x, int64_t row_stride,
                                                    int64_t column_stride) {
  Vector<T> columns[kPoints * kCount], row[kPoints];
#pragma GCC unroll 5
  for (int j = 0; j < kCount; ++j) {
    Vector<T> column[kCount];
#pragma GCC unroll 5
    for (int i = 0; i < kCount; ++i) column[i] = load(x + i * row_stride + j * column_stride);
    to_points<T, kCount>(w, column, 1, columns + j, kCount);
  }
#pragma GCC unroll 6
  for (int i = 0; i < kPoints; ++i) {
    to_points<T, kCount>(w, columns + kCount * i, 1, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j) store<T>(v + (kPoints * i + j) * stride, row[j]);
  }
}

// Its adjoint: put(i, j, value) takes what comes of the points.
template <class T, int kCount, class Put>
[[gnu::always_inline]] inline void square_from_points(Weights<T> w, const T* v, int64_t stride, Put put) {
  Vector<T> columns[kCount * kPoints], row[kCount];
#pragma GCC unroll 6
  for (int j = 0; j < kPoints; ++j) {
    Vector<T> column[kPoints];
#pragma GCC unroll 6
    for (int i = 0; i < kPoints; ++i) column[i] = load(v + (kPoints * i + j) * stride);
    from_points<T, kCount>(w, column, 1, columns + j, kPoints);
  }
#pragma GCC unroll 5
  for (int i = 0; i < kCount; ++i) {
    from_points<T, kCount>(w, columns + kPoints * i, 1, row, 1);
#pragma GCC unroll 5
    for (int j = 0; j < kCount; ++j) put(i, j, row[j]);
  }
}

template <class T, int kTaps>
void winograd_filter(T* u, int64_t stride, const T* g, int64_t tap_stride) {
  square_to_points<T, kTaps>(kFilterWeights<T>, u, stride, g, kTaps * tap_stride, tap_stride);
}

template <class T, int kTaps>
void winograd_output(T* y, int64_t row_stride, int64_t column_stride, const T* m, int64_t stride, const T* bias,
                     bool relu) {
  const Vector<T> b = load(bias);
  square_from_points<T, kOutputs<kTaps>>(kNoWeights<T>, m, stride, [&](int i, int j, Vector<T> sum) {
    const Vector<T> value = sum + b;
    store<T>(y + i * row_stride + j * column_stride, relu ? (value < 0 ? Vector<T>{} : value) : value);
  });
}

template <class T, int kTaps>
void winograd_gradient(T* e, int64_t stride, const T* dy, int64_t row_stride, int64_t column_stride) {
  square_to_points<T, kOutputs<kTaps>>(kNoWeights<T>, e, stride, dy, row_stride, column_stride);
}

template <class T, int kTaps>
void winograd_filter_gradient(T* g, const T* u, int64_t stride) {
  square_from_points<T, kTaps>(kFilterWeights<T>, u, stride,
                               [&](int i, int j, Vector<T> sum) { store<T>(g + (kTaps * i + j) * kLanes<T>, sum); });
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
