// Max-pooling.
#pragma once

#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

template <class T>
constexpr T kLowest = static_cast<T>(-__builtin_inf());

template <class T>
void max_row(T* best, int32_t* tap, int64_t count, const T* src, const RowTap* taps, const int32_t* numbers,
             int64_t tap_count, int64_t step) {
  constexpr int kL = kLanes<T>;
  using Mask = decltype(Vector<T>{} < Vector<T>{});
  using Lane = decltype(Mask{}[0] + 0);
  Mask lanes{};
  for (int i = 0; i < kL; ++i) lanes[i] = i;
  for (int64_t first = 0; first < count; first += kL) {
    Vector<T> b = Vector<T>{} + kLowest<T>;
    Mask number = Mask{} - 1;
    for (int64_t t = 0; t < tap_count; ++t) {
      const Vector<T> value = load_tap(src, taps[t], first, step);
      const Mask real = (lanes >= static_cast<Lane>(clamp_lanes<T>(taps[t].begin - first))) &
                        (lanes < static_cast<Lane>(clamp_lanes<T>(taps[t].end - first)));
      const Mask take = real & ((value > b) | ((value != value) & (b == b)) | (number < 0));
      b = take ? value : b;
      number = take ? Mask{} + static_cast<Lane>(numbers[t]) : number;
    }
    store<T>(best + first, b);
    for (int i = 0; i < kL; ++i) tap[first + i] = static_cast<int32_t>(number[i]);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
