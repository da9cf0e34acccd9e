// Convolutions of one channel a group.
#pragma once

#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

template <class T>
void depthwise_row(T* out, int64_t out_step, int64_t count, const T* src, const RowTap* taps, const T* weights,
                   int64_t tap_count, int64_t step, T bias, bool relu) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    Vector<T> sum = Vector<T>{} + bias;
    for (int64_t t = 0; t < tap_count; ++t) sum += weights[t] * load_tap(src, taps[t], first, step);
    if (relu) sum = sum < 0 ? Vector<T>{} : sum;
    if (out_step == 1 && first + kL <= count) {
      store<T>(out + first, sum);
    } else {
      for (int64_t i = 0; i < kL && first + i < count; ++i) out[(first + i) * out_step] = sum[i];
    }
  }
}

template <class T>
void depthwise_pixel(T* out, int64_t channels, const T* const* src, const T* const* weights, int64_t tap_count,
                     const T* bias, bool relu) {
  constexpr int kL = kLanes<T>;
  int64_t c = 0;
  for (; c + kL <= channels; c += kL) {
    Vector<T> sum = bias != nullptr ? load(bias + c) : Vector<T>{};
    for (int64_t t = 0; t < tap_count; ++t) sum += load(weights[t] + c) * load(src[t] + c);
    store<T>(out + c, relu ? (sum < 0 ? Vector<T>{} : sum) : sum);
  }
  for (; c < channels; ++c) {
    T sum = bias != nullptr ? bias[c] : T(0);
    for (int64_t t = 0; t < tap_count; ++t) sum += weights[t][c] * src[t][c];
    out[c] = relu && sum < 0 ? T(0) : sum;
  }
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
