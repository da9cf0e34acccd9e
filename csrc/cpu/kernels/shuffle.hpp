// Lanes of vectors that change places: squares transposed, every second lane, loads with a stride.
#pragma once

#include "taps.hpp"
#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// Swaps the odd blocks of kSpan lanes of a with the even ones of b.
template <class T, int kSpan>
[[gnu::always_inline]] inline void swap_blocks(Vector<T>& a, Vector<T>& b) {
  constexpr int kL = kLanes<T>;
  decltype(Vector<T>{} < Vector<T>{}) low{}, high{};
  for (int i = 0; i < kL; ++i) {
    low[i] = (i & kSpan) == 0 ? i : i - kSpan + kL;
    high[i] = (i & kSpan) == 0 ? i + kSpan : i + kL;
  }
  const Vector<T> first = __builtin_shuffle(a, b, low);
  b = __builtin_shuffle(a, b, high);
  a = first;
}

// Transposes a square of vectors: log2(lanes) rounds, each swapping blocks of kSpan lanes between rows kSpan apart.
template <class T, int kSpan = 1>
[[gnu::always_inline]] inline void transpose(Vector<T>* rows) {
  constexpr int kL = kLanes<T>;
  if constexpr (kSpan < kL) {
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      if ((i & kSpan) != 0) continue;
      swap_blocks<T, kSpan>(rows[i], rows[i + kSpan]);
    }
    transpose<T, 2 * kSpan>(rows);
  }
}

// Lane i is the sum of rows[i]: a transposition that adds the halves at every step. The rows are overwritten.
template <class T, int kSpan = 1>
[[gnu::always_inline]] inline Vector<T> lane_sums(Vector<T>* rows) {
  constexpr int kL = kLanes<T>;
  if constexpr (kSpan < kL) {
#pragma GCC unroll 16
    for (int i = 0; i < kL; i += 2 * kSpan) {
      swap_blocks<T, kSpan>(rows[i], rows[i + kSpan]);
      rows[i] += rows[i + kSpan];
    }
    return lane_sums<T, 2 * kSpan>(rows);
  }
  return rows[0];
}

// Lanes 0, 2, 4, ... of two vectors, and lanes 1, 3, 5, ...
template <class T>
Vector<T> even_lanes(Vector<T> a, Vector<T> b) {
  decltype(Vector<T>{} < Vector<T>{}) index{};
  for (int i = 0; i < kLanes<T>; ++i) index[i] = 2 * i;
  return __builtin_shuffle(a, b, index);
}
template <class T>
Vector<T> odd_lanes(Vector<T> a, Vector<T> b) {
  decltype(Vector<T>{} < Vector<T>{}) index{};
  for (int i = 0; i < kLanes<T>; ++i) index[i] = 2 * i + 1;
  return __builtin_shuffle(a, b, index);
}
// a[0], b[0], a[1], b[1], ...: its first vector, or its second.
template <class T>
Vector<T> interleave(Vector<T> a, Vector<T> b, bool second) {
  constexpr int kL = kLanes<T>;
  decltype(Vector<T>{} < Vector<T>{}) low{}, high{};
  for (int i = 0; i < kL; ++i) {
    low[i] = i / 2 + i % 2 * kL;
    high[i] = kL / 2 + i / 2 + i % 2 * kL;
  }
  return second ? __builtin_shuffle(a, b, high) : __builtin_shuffle(a, b, low);
}

// The first `count` lanes to p[0], p[2], p[4], ...; what lies between stays.
template <class T>
void store_every_second(T* p, Vector<T> v, int count) {
#if defined(__AVX512F__)
  const uint32_t lanes = 0x55555555u >> (32 - 2 * count);
  const Vector<T> low = interleave<T>(v, v, false), high = interleave<T>(v, v, true);
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lanes), reinterpret_cast<__m512>(low));
    _mm512_mask_storeu_ps(p + 16, static_cast<__mmask16>(lanes >> 16), reinterpret_cast<__m512>(high));
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(lanes), reinterpret_cast<__m512d>(low));
    _mm512_mask_storeu_pd(p + 8, static_cast<__mmask8>(lanes >> 8), reinterpret_cast<__m512d>(high));
  }
#else
  for (int i = 0; i < count; ++i) p[2 * i] = v[i];
#endif
}

// Lane i of [begin, end) is base[i * kStep], a power of two; the others are zero. Reads nothing before the first or
// after the last of them.
template <class T, int kStep>
[[gnu::always_inline]] inline Vector<T> load_strided(const T* base, int begin, int end) {
  constexpr int kL = kLanes<T>;
  Vector<T> v[kStep];
#pragma GCC unroll 4
  for (int i = 0; i < kStep; ++i) {
    const int from = clamp_lanes<T>(begin * kStep - i * kL), to = clamp_lanes<T>((end - 1) * kStep + 1 - i * kL);
    if (from == 0 && to == kL) {
      v[i] = load(base + i * kL);
    } else {
      v[i] = Vector<T>{};
      if (from < to) load_lanes<T>(v[i], base + i * kL, from, to);
    }
  }
#pragma GCC unroll 2
  for (int count = kStep / 2; count > 0; count /= 2) {
#pragma GCC unroll 2
    for (int i = 0; i < count; ++i) v[i] = even_lanes<T>(v[2 * i], v[2 * i + 1]);
  }
  return v[0];
}

template <class T>
[[gnu::always_inline]] inline Vector<T> load_lanes_strided(const T* base, int begin, int end, int64_t step) {
  if (begin >= end) return Vector<T>{};
  if (step == 1) return load_strided<T, 1>(base, begin, end);
  if (step == 2) return load_strided<T, 2>(base, begin, end);
  if (step == 4) return load_strided<T, 4>(base, begin, end);
  Vector<T> v{};
  for (int i = begin; i < end; ++i) v[i] = base[i * step];
  return v;
}

// Lanes [first, first + kLanes) of a tap, zero in the padding. Reads nothing outside.
template <class T>
[[gnu::always_inline]] inline Vector<T> load_tap(const T* base, const RowTap& tap, int64_t first, int64_t step) {
  return load_lanes_strided(base + tap.offset + first * step, clamp_lanes<T>(tap.begin - first),
                            clamp_lanes<T>(tap.end - first), step);
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
