// Max-pooling.
#pragma once

#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

template <class T>
constexpr Lane<T> lowest() {
  if constexpr (static_cast<T>(0.5) != 0) {
    return static_cast<T>(-__builtin_inf());
  } else if constexpr (static_cast<T>(-1) > 0) {
    return 0;
  } else {
    return static_cast<T>(T{1} << (8 * sizeof(T) - 1));
  }
}

// A whole vector of lanes from as many bytes.
template <class T>
Vector<int32_t> widen(const T* bytes) {
  typedef T Bytes [[gnu::vector_size(kLanes<int32_t>), gnu::aligned(1), gnu::may_alias]];
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(bytes), Vector<int32_t>);
}

// load_tap, of any type.
template <class T>
Vector<Lane<T>> load_values(const T* base, const RowTap& tap, int64_t first, int64_t step) {
  if constexpr (sizeof(T) > 1) {
    return load_tap(base, tap, first, step);
  } else {
    constexpr int kL = kLanes<int32_t>;
    const T* src = base + tap.offset + first * step;
    const int begin = clamp_lanes<int32_t>(tap.begin - first), end = clamp_lanes<int32_t>(tap.end - first);
    if (step == 1 && begin == 0 && end == kL) return widen(src);
    if (step == 2 && begin == 0 && tap.end - first > kL) return even_lanes<int32_t>(widen(src), widen(src + kL));
    Vector<int32_t> v{};
    for (int i = begin; i < end; ++i) v[i] = src[i * step];
    return v;
  }
}

template <class T>
void max_row(Lane<T>* best, int32_t* tap, int64_t count, const T* src, const RowTap* taps, const int32_t* numbers,
             int64_t tap_count, int64_t step) {
  using V = Vector<Lane<T>>;
  constexpr int kL = kLanes<Lane<T>>;
  using Mask = decltype(V{} < V{});
  using Number = decltype(Mask{}[0] + 0);
  Mask lanes{};
  for (int i = 0; i < kL; ++i) lanes[i] = i;
  for (int64_t first = 0; first < count; first += kL) {
    V b = V{} + lowest<T>();
    Mask number = Mask{} - 1;
    for (int64_t t = 0; t < tap_count; ++t) {
      const V value = load_values(src, taps[t], first, step);
      const Mask real = (lanes >= static_cast<Number>(clamp_lanes<Lane<T>>(taps[t].begin - first))) &
                        (lanes < static_cast<Number>(clamp_lanes<Lane<T>>(taps[t].end - first)));
      const Mask take = real & ((value > b) | ((value != value) & (b == b)) | (number < 0));
      b = take ? value : b;
      number = take ? Mask{} + static_cast<Number>(numbers[t]) : number;
    }
    store<Lane<T>>(best + first, b);
    for (int i = 0; i < kL; ++i) tap[first + i] = static_cast<int32_t>(number[i]);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
