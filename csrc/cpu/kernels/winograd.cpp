// Winograd's transforms, lanes being channels.
#include "winograd.hpp"

#include "float_tables.hpp"
#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// The transforms of F(o x o, r x r) (Lavin and Gray, arXiv 1509.09308). Filters and gradients are polynomials, of r and
// o coefficients, whose product is known by its values at r + o - 1 points: 0, a and -a for one a or two, and infinity.
template <class T, int kPairs>
struct Basis {
  static constexpr int kPoints = 2 * kPairs + 2;
  T a[kPairs];
  T others[kPairs][kPairs];       // coefficients of x^0, x^2, ... in the product of x^2 - b^2 over all b but this a
  T all[kPairs + 1];              // over all
  T zero_weight, weight[kPairs];  // of a filter's values at 0, and at a and -a

  constexpr Basis() : a{}, others{}, all{}, zero_weight{}, weight{} {
    a[0] = kPairs == 1 ? T(1) : T(0.75);
    a[kPairs - 1] = kPairs == 1 ? T(1) : T(1.5);  // 1 and 2 save some multiplications and round four times worse
    for (int p = 0; p < kPairs; ++p) {
      const T square = a[p] * a[p], other = a[kPairs - 1 - p] * a[kPairs - 1 - p];
      others[p][0] = -other;
      others[p][kPairs - 1] = 1;
      weight[p] = 1 / (2 * square * (kPairs == 1 ? 1 : square - other));
    }
    for (int i = 0; i < kPairs; ++i) {
      all[i] -= a[0] * a[0] * others[0][i];
      all[i + 1] += others[0][i];
    }
    zero_weight = 1 / all[0];
  }
};
template <class T, int kPairs>
constexpr Basis<T, kPairs> kBasis{};

template <class T>
constexpr T power(T base, int exponent) {
  return exponent == 0 ? 1 : base * power(base, exponent - 1);
}

// The values of kCount coefficients at the points, `step` vectors apart.
template <class T, int kPairs, int kCount, bool kWeighted>
[[gnu::always_inline]] inline void to_points(const Vector<T>* x, Vector<T>* v, int step) {
  constexpr auto& basis = kBasis<T, kPairs>;
  v[0] = kWeighted ? basis.zero_weight * x[0] : x[0];
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
    Vector<T> at[2] = {};  // the even powers, the odd ones
#pragma GCC unroll 5
    for (int i = 0; i < kCount; ++i) at[i % 2] += ((kWeighted ? basis.weight[p] : 1) * power(basis.a[p], i)) * x[i];
    v[(2 * p + 1) * step] = at[0] + at[1];
    v[(2 * p + 2) * step] = at[0] - at[1];
  }
  v[(basis.kPoints - 1) * step] = x[kCount - 1];
}

// Its adjoint.
template <class T, int kPairs, int kCount, bool kWeighted>
[[gnu::always_inline]] inline void from_points(const Vector<T>* v, Vector<T>* x, int step) {
  constexpr auto& basis = kBasis<T, kPairs>;
#pragma GCC unroll 5
  for (int i = 0; i < kCount; ++i) {
    Vector<T> sum{};
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) {
      const Vector<T> plus = v[2 * p + 1], minus = v[2 * p + 2];
      sum += ((kWeighted ? basis.weight[p] : 1) * power(basis.a[p], i)) * (i % 2 == 0 ? plus + minus : plus - minus);
    }
    if (i == 0) sum += kWeighted ? basis.zero_weight * v[0] : v[0];
    if (i == kCount - 1) sum += v[basis.kPoints - 1];
    x[i * step] = sum;
  }
}

// Cells d at the points, as the adjoint of an interpolation, `step` vectors apart.
template <class T, int kPairs>
[[gnu::always_inline]] inline void cells_to_points(const Vector<T>* d, Vector<T>* v, int step) {
  constexpr auto& basis = kBasis<T, kPairs>;
  Vector<T> zero = basis.all[0] * d[0], infinity = basis.all[0] * d[1];
#pragma GCC unroll 2
  for (int i = 1; i <= kPairs; ++i) {
    zero += basis.all[i] * d[2 * i];
    infinity += basis.all[i] * d[2 * i + 1];
  }
  v[0] = zero;
  v[(basis.kPoints - 1) * step] = infinity;
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
    Vector<T> even = d[2 * kPairs], odd = d[2 * kPairs - 1];
    for (int i = 0; i < kPairs - 1; ++i) {
      even += basis.others[p][i] * d[2 * i + 2];
      odd += basis.others[p][i] * d[2 * i + 1];
    }
    v[(2 * p + 1) * step] = even + basis.a[p] * odd;
    v[(2 * p + 2) * step] = even - basis.a[p] * odd;
  }
}

// Its adjoint.
template <class T, int kPairs>
[[gnu::always_inline]] inline void points_to_cells(const Vector<T>* v, Vector<T>* d, int step) {
  constexpr auto& basis = kBasis<T, kPairs>;
  Vector<T> even[kPairs], odd[kPairs];
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
    even[p] = v[2 * p + 1] + v[2 * p + 2];
    odd[p] = basis.a[p] * (v[2 * p + 1] - v[2 * p + 2]);
  }
#pragma GCC unroll 3
  for (int i = 0; i <= kPairs; ++i) {
    Vector<T> at_even = basis.all[i] * v[0], at_odd = basis.all[i] * v[basis.kPoints - 1];
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) {
      if (i > 0) at_even += basis.others[p][i - 1] * even[p];
      if (i < kPairs) at_odd += basis.others[p][i] * odd[p];
    }
    d[2 * i * step] = at_even;
    d[(2 * i + 1) * step] = at_odd;
  }
}

// put(i, j, cell) for each of [kTo][kTo] that come of get(i, j) of [kFrom][kFrom]: columns transformed, then rows.
template <class T, int kFrom, int kTo, class Transform, class Get, class Put>
[[gnu::always_inline]] inline void transform_square(Transform transform, Get get, Put put) {
  Vector<T> columns[kTo * kFrom], row[kTo];
#pragma GCC unroll 6
  for (int j = 0; j < kFrom; ++j) {
    Vector<T> column[kFrom];
#pragma GCC unroll 6
    for (int i = 0; i < kFrom; ++i) column[i] = get(i, j);
    transform(column, columns + j, kFrom);
  }
#pragma GCC unroll 6
  for (int i = 0; i < kTo; ++i) {
    transform(columns + kFrom * i, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < kTo; ++j) put(i, j, row[j]);
  }
}

// The kernels of kernels.hpp.
template <class T, int kOutputs, int kTaps>
struct Winograd {
  static constexpr int kPairs = (kOutputs + kTaps - 3) / 2, kPoints = Basis<T, kPairs>::kPoints;

  static void input(T* v, int64_t stride, const T* d, int64_t row_stride, int64_t column_stride) {
    transform_square<T, kPoints, kPoints>(
        cells_to_points<T, kPairs>, [&](int i, int j) { return load(d + i * row_stride + j * column_stride); },
        [&](int i, int j, Vector<T> value) { store<T>(v + (kPoints * i + j) * stride, value); });
  }

  static void input_gradient(T* d, int64_t row_stride, int64_t column_stride, const T* v, int64_t stride) {
    transform_square<T, kPoints, kPoints>(
        points_to_cells<T, kPairs>, [&](int i, int j) { return load(v + (kPoints * i + j) * stride); },
        [&](int i, int j, Vector<T> value) {
          T* cell = d + i * row_stride + j * column_stride;
          store<T>(cell, load(cell) + value);
        });
  }

  static void filter(T* u, int64_t stride, const T* g, int64_t tap_stride) {
    transform_square<T, kTaps, kPoints>(
        to_points<T, kPairs, kTaps, true>, [&](int i, int j) { return load(g + (kTaps * i + j) * tap_stride); },
        [&](int i, int j, Vector<T> value) { store<T>(u + (kPoints * i + j) * stride, value); });
  }

  static void output(T* y, int64_t row_stride, int64_t column_stride, const T* m, int64_t stride, const T* bias,
                     bool relu) {
    const Vector<T> b = load(bias);
    transform_square<T, kPoints, kOutputs>(
        from_points<T, kPairs, kOutputs, false>, [&](int i, int j) { return load(m + (kPoints * i + j) * stride); },
        [&](int i, int j, Vector<T> sum) {
          const Vector<T> value = sum + b;
          store<T>(y + i * row_stride + j * column_stride, relu ? (value < 0 ? Vector<T>{} : value) : value);
        });
  }

  static void gradient(T* e, int64_t stride, const T* dy, int64_t row_stride, int64_t column_stride) {
    transform_square<T, kOutputs, kPoints>(
        to_points<T, kPairs, kOutputs, false>,
        [&](int i, int j) { return load(dy + i * row_stride + j * column_stride); },
        [&](int i, int j, Vector<T> value) { store<T>(e + (kPoints * i + j) * stride, value); });
  }

  static void filter_gradient(T* g, const T* u, int64_t stride) {
    transform_square<T, kPoints, kTaps>(
        from_points<T, kPairs, kTaps, true>, [&](int i, int j) { return load(u + (kPoints * i + j) * stride); },
        [&](int i, int j, Vector<T> sum) { store<T>(g + (kTaps * i + j) * kLanes<T>, sum); });
  }
};

template <class T, int kOutputs, int kTaps, class W = Winograd<T, kOutputs, kTaps>>
constexpr WinogradTransforms<T> kTransforms{W::input,  W::input_gradient, W::filter,
                                            W::output, W::gradient,       W::filter_gradient};
template <class T>
constexpr WinogradKernels<T> kWinograd{kTransforms<T, 4, 3>, kTransforms<T, 2, 3>, kTransforms<T, 2, 5>};

}  // namespace

extern const FloatTables<WinogradKernels> winograd;
const FloatTables<WinogradKernels> winograd{kWinograd<float>, kWinograd<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
