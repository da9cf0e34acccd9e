// Sums over windows, for average and sum pooling, and of rows and columns, for bias gradients.
#include "sum.hpp"

#include "float_tables.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// kBlock whole vectors of lanes at once: several cache lines of each row in a go.
template <class T, int kBlock>
void sum_vectors(T* out, const T* init, const T* const* rows, const T* weights, int64_t row_count, int64_t first,
                 T divisor) {
  constexpr int kL = kLanes<T>;
  Vector<T> sums[kBlock];
#pragma GCC unroll 4
  for (int i = 0; i < kBlock; ++i) sums[i] = init != nullptr ? load(init + first + i * kL) : Vector<T>{};
  for (int64_t j = 0; j < row_count; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < kBlock; ++i) sums[i] += weights[j] * load(rows[j] + first + i * kL);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kBlock; ++i) store<T>(out + first + i * kL, divisor != 1 ? sums[i] / divisor : sums[i]);
}

// `count` lanes of memory that is `step`-strided, fewer than a vector or not contiguous; the others are zero.
template <class T>
Vector<T> gather_lanes(const T* src, int count, int64_t step) {
  Vector<T> v{};
  if (step == 1) {
    load_lanes<T>(v, src, 0, count);
  } else {
    for (int i = 0; i < count; ++i) v[i] = src[i * step];
  }
  return v;
}

template <class T>
void sum_rows(T* out, int64_t count, const T* init, const T* const* rows, const T* weights, int64_t row_count,
              int64_t step, T divisor) {
  constexpr int kL = kLanes<T>, kBlock = 4;
  int64_t first = 0;
  if (step == 1) {
    for (; first + kBlock * kL <= count; first += kBlock * kL)
      sum_vectors<T, kBlock>(out, init, rows, weights, row_count, first, divisor);
    for (; first + kL <= count; first += kL) sum_vectors<T, 1>(out, init, rows, weights, row_count, first, divisor);
  }
  for (; first < count; first += kL) {
    const int lanes = clamp_lanes<T>(count - first);
    Vector<T> sum = init != nullptr ? gather_lanes(init + first, lanes, 1) : Vector<T>{};
    for (int64_t j = 0; j < row_count; ++j) sum += weights[j] * gather_lanes(rows[j] + first * step, lanes, step);
    store_lanes<T>(out + first, divisor != 1 ? sum / divisor : sum, lanes);
  }
}

template <class T>
void slide(T* sums, int64_t count, const T* row, int64_t taps, int64_t stride) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    const T* src = row + first * stride;
    Vector<T> sum{};
    for (int64_t t = 0; t < taps; ++t) {
      sum += stride == 1 ? load(src + t) : even_lanes<T>(load(src + t), load(src + t + kL));
    }
    store<T>(sums + first, sum);
  }
}

template <class T>
double run_in_double(const T* src, int64_t count) {
  constexpr int kL = kLanes<double>, kChains = 4;  // additions wait for each other otherwise
  Vector<double> sums[kChains] = {};
  int64_t first = 0;
  for (; first + kChains * kL <= count; first += kChains * kL) {
#pragma GCC unroll 4
    for (int i = 0; i < kChains; ++i) sums[i] += load_as_double(src + first + i * kL);
  }
  const Vector<double> lanes = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0;
  for (int i = 0; i < kL; ++i) total += lanes[i];
  for (; first < count; ++first) total += static_cast<double>(src[first]);
  return total;
}

template <class T, int kBlock>
void add_rows(double* totals, const T* src, int64_t stride, int64_t rows) {
  constexpr int kL = kLanes<double>;
  Vector<double> sums[kBlock];
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) sums[i] = load(totals + i * kL);
  for (int64_t row = 0; row < rows; ++row, src += stride) {
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) sums[i] += load_as_double(src + i * kL);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; ++i) store<double>(totals + i * kL, sums[i]);
}

// Whole cache lines of each row at a time, where there are as many columns.
template <class T>
void columns_in_double(double* totals, const T* src, int64_t stride, int64_t rows, int64_t count) {
  constexpr int kL = kLanes<double>;
  int64_t i = 0;
  for (; i + 8 * kL <= count; i += 8 * kL) add_rows<T, 8>(totals + i, src + i, stride, rows);
  for (; i + 4 * kL <= count; i += 4 * kL) add_rows<T, 4>(totals + i, src + i, stride, rows);
  for (; i + kL <= count; i += kL) add_rows<T, 1>(totals + i, src + i, stride, rows);
  for (; i < count; ++i) {
    for (int64_t row = 0; row < rows; ++row) totals[i] += static_cast<double>(src[row * stride + i]);
  }
}

// out[2i], out[2i + 1] = even[i], odd[i], in whole vectors.
template <class T>
void interleave(T* out, const T* even, const T* odd, int64_t count) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    const Vector<T> a = load(even + first), b = load(odd + first);
    store<T>(out + 2 * first, interleave<T>(a, b, false));
    store<T>(out + 2 * first + kL, interleave<T>(a, b, true));
  }
}

template <class T>
void divide(T* out, int64_t out_step, const T* src, int64_t src_step, const T* divisors, T factor, int64_t count) {
  constexpr int kL = kLanes<T>;
  int64_t i = 0;
  for (; out_step == 1 && src_step == 1 && i < count; i += kL) {
    const int lanes = clamp_lanes<T>(count - i);
    if (lanes == kL) {
      store<T>(out + i, load(src + i) / (factor * load(divisors + i)));
    } else {
      store_lanes<T>(out + i, gather_lanes(src + i, lanes, 1) / (factor * load(divisors + i)), lanes);
    }
  }
  for (; i < count; ++i) out[i * out_step] = src[i * src_step] / (factor * divisors[i]);
}

template <class T>
T sum_run(const T* src, int64_t count) {
  constexpr int kL = kLanes<T>;
  T total = 0;
  int64_t first = 0;
  if (count >= kL) {
    Vector<T> sums[2] = {};  // additions wait for each other otherwise
    for (; first + 2 * kL <= count; first += 2 * kL) {
      sums[0] += load(src + first);
      sums[1] += load(src + first + kL);
    }
    if (first + kL <= count) {
      sums[0] += load(src + first);
      first += kL;
    }
    T lanes[kL];
    store<T>(lanes, sums[0] + sums[1]);
#pragma GCC unroll 4
    for (int half = kL / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    total = lanes[0];
  }
  for (; first < count; ++first) total += src[first];
  return total;
}

template <class T>
constexpr SumKernels<T> kSum{sum_rows<T>,          slide<T>,      sum_run<T>, run_in_double<T>,
                             columns_in_double<T>, interleave<T>, divide<T>};

}  // namespace

extern const FloatTables<SumKernels> sum;
const FloatTables<SumKernels> sum{kSum<float>, kSum<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
