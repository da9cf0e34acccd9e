// Batch normalisation: sums and affine maps of rows that hold a value of each channel.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// Values [rows][channels], rows `stride` apart, channels contiguous.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
};

// Factors of y = scale_a a + scale_b (b - shift_b) + bias, one for each channel.
template <class T>
struct ChannelAffine {
  const T *scale_a, *scale_b, *shift_b, *bias;
};

template <class T>
struct BatchNormKernels {
  // sum[c] += a - a0[c] and product[c] += (a - a0[c]) (b - b0[c]), over the rows.
  void (*sums)(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const T* a0, const T* b0, double* sum,
               double* product);
  // y by its factors, then max(y, 0) if relu. a.data may be null: the term is left out, and its factors are not read.
  void (*affine)(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const ChannelAffine<T>& factors,
                 bool relu, Rows<T> y);
};

}  // namespace fastconv::cpu
