// Depthwise convolutions with filters of 3x3 and a stride of 1 or 2, the usual ones: rows of outputs are computed
// together, and each row of input is loaded once for all of them.
#pragma once

#include "depthwise.hpp"
#include "prefetch.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// The rows that some rows of outputs read: `data` is the first, perhaps in the padding; real are those from `begin` to
// before `end`.
template <class T>
struct InputRows {
  const T* data;
  int64_t step, begin, end;
};

template <class T>
InputRows<T> input_rows(const Plane<const T>& x, int64_t first) {
  return {x.data + first * x.row_stride, x.row_stride, -first, x.height - first};
}

// Calls body<kRows, whether all rows that these outputs read are real>().
template <class T, int kStride, int kRows, class Body>
[[gnu::always_inline]] inline void if_inside(const InputRows<T>& x, Body body) {
  if (x.begin <= 0 && x.end >= (kRows - 1) * kStride + 3) {
    body.template operator()<kRows, true>();
  } else {
    body.template operator()<kRows, false>();
  }
}

// Calls visit(o, r, taps) for each of kRows rows of outputs and its filter rows: a row of x is read once for all the
// outputs that it is part of. No branches: sums stay in registers.
template <class T, int kStride, int kRows, bool kInside, class Taps, class Visit>
[[gnu::always_inline]] inline void for_each_row3(const InputRows<T>& x, const Taps& reader, Visit visit) {
  const T* row = x.data;
  asm("" : "+r"(row));  // one pointer, not an induction variable for each of these addresses
#pragma GCC unroll 9
  for (int i = 0; i < (kRows - 1) * kStride + 3; ++i, row += x.step) {
    Vector<T> taps[3];
    reader.read(row, kInside || (i >= x.begin && i < x.end), taps);
    if (i >= 3 - kStride) reader.prefetch(row + kRows * kStride * x.step);
#pragma GCC unroll 3
    for (int o = 0; o < kRows; ++o) {
      const int r = i - o * kStride;
      if (r >= 0 && r <= 2) visit(o, r, taps);
    }
  }
}

template <class T, int kStride, int kRows, bool kInside, class Outputs, class Taps>
[[gnu::always_inline]] inline void correlate3x3(T* y, int64_t y_row, const Outputs& outputs, const InputRows<T>& x,
                                                const Taps& reader, const Vector<T>* weights, Vector<T> bias,
                                                bool relu) {
  Vector<T> sum[kRows];
#pragma GCC unroll 3
  for (int o = 0; o < kRows; ++o) {
    sum[o] = bias;
    fetch_ahead(y + o * y_row, 1);
  }
  for_each_row3<T, kStride, kRows, kInside>(x, reader, [&](int o, int r, const Vector<T>* taps) {
    sum[o] += weights[3 * r] * taps[0];
    sum[o] += weights[3 * r + 1] * taps[1];
    sum[o] += weights[3 * r + 2] * taps[2];
  });
#pragma GCC unroll 3
  for (int o = 0; o < kRows; ++o) outputs.store_to(y + o * y_row, relu_if<T>(relu, sum[o]));
}

template <class T, int kStride, int kRows, bool kInside, class Outputs, class Taps>
[[gnu::always_inline]] inline void reduce3x3(const T* dy, int64_t dy_row, const Outputs& outputs, const InputRows<T>& x,
                                             const Taps& reader, Vector<T>* sums) {
  Vector<T> gradient[kRows];
#pragma GCC unroll 3
  for (int o = 0; o < kRows; ++o) {
    gradient[o] = outputs.load_from(dy + o * dy_row);
    fetch_ahead(dy + o * dy_row, 1);
  }
  for_each_row3<T, kStride, kRows, kInside>(x, reader, [&](int o, int r, const Vector<T>* taps) {
    sums[3 * r] += gradient[o] * taps[0];
    sums[3 * r + 1] += gradient[o] * taps[1];
    sums[3 * r + 2] += gradient[o] * taps[2];
  });
}

// Rows of outputs are taken three at a time, then one by one: calls visit<3>(p) or visit<1>(p).
template <class Visit>
[[gnu::always_inline]] inline void by_threes(int64_t rows, Visit visit) {
  int64_t p = 0;
  for (; p + 3 <= rows; p += 3) visit.template operator()<3>(p);
  for (; p < rows; ++p) visit.template operator()<1>(p);
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
