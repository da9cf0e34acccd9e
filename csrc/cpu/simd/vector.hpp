// Vectors of the instruction set this is built for, and the loads, stores and shuffles that the kernels share.
#pragma once

#include "../kernels.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
using Vector [[gnu::vector_size(kVectorBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;

template <class T>
Vector<T> load(const T* p) {
  return *reinterpret_cast<const Vector<T>*>(p);
}
template <class T>
void store(T* p, Vector<T> v) {
  *reinterpret_cast<Vector<T>*>(p) = v;
}

// Lanes [begin, end) of `v` from base[lane], the others as they were. Reads nothing outside.
template <class T>
void load_lanes(Vector<T>& v, const T* base, int begin, int end) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const auto mask = static_cast<__mmask16>((0xFFFFu >> (16 - end)) & (0xFFFFu << begin));
    v = reinterpret_cast<Vector<T>>(_mm512_mask_loadu_ps(reinterpret_cast<__m512>(v), mask, base));
  } else {
    const auto mask = static_cast<__mmask8>((0xFFu >> (8 - end)) & (0xFFu << begin));
    v = reinterpret_cast<Vector<T>>(_mm512_mask_loadu_pd(reinterpret_cast<__m512d>(v), mask, base));
  }
#else
  for (int i = begin; i < end; ++i) v[i] = base[i];
#endif
}

// The first `count` lanes of v.
template <class T>
void store_lanes(T* p, Vector<T> v, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(0xFFFFu >> (16 - count)), reinterpret_cast<__m512>(v));
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(0xFFu >> (8 - count)), reinterpret_cast<__m512d>(v));
  }
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

// Transposes a square of vectors: log2(lanes) rounds, each swapping blocks of kSpan lanes between rows kSpan apart.
template <class T, int kSpan = 1>
void transpose(Vector<T>* rows) {
  constexpr int kL = kLanes<T>;
  if constexpr (kSpan < kL) {
    decltype(Vector<T>{} < Vector<T>{}) low{}, high{};
    for (int i = 0; i < kL; ++i) {
      low[i] = (i & kSpan) == 0 ? i : i - kSpan + kL;
      high[i] = (i & kSpan) == 0 ? i + kSpan : i + kL;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      if ((i & kSpan) != 0) continue;
      const Vector<T> a = rows[i], b = rows[i + kSpan];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + kSpan] = __builtin_shuffle(a, b, high);
    }
    transpose<T, 2 * kSpan>(rows);
  }
}

template <class T>
constexpr int clamp_lanes(int64_t value) {
  return value < 0 ? 0 : value > kLanes<T> ? kLanes<T> : static_cast<int>(value);
}

// Lanes 0, 2, 4, ... of two vectors.
template <class T>
Vector<T> even_lanes(Vector<T> a, Vector<T> b) {
  decltype(Vector<T>{} < Vector<T>{}) index{};
  for (int i = 0; i < kLanes<T>; ++i) index[i] = 2 * i;
  return __builtin_shuffle(a, b, index);
}

// Lanes [first, first + kLanes) of a tap, zero in the padding. Reads nothing outside.
template <class T>
Vector<T> load_tap(const T* base, const RowTap& tap, int64_t first, int64_t step) {
  constexpr int kL = kLanes<T>;
  const T* src = base + tap.offset + first * step;
  const int begin = clamp_lanes<T>(tap.begin - first), end = clamp_lanes<T>(tap.end - first);
  if (step == 1) {
    if (begin == 0 && end == kL) return load(src);
    Vector<T> v{};
    if (begin < end) load_lanes<T>(v, src, begin, end);
    return v;
  }
  // Two plain loads end one element after the last lane's; the lane after it vouches for that.
  if (step == 2 && begin == 0 && tap.end - first > kL) return even_lanes<T>(load(src), load(src + kL));
  if (step == 2 && begin < end) {  // elements 2 begin ... 2 (end - 1) of two vectors, every other one
    Vector<T> low{}, high{};
    const int last = 2 * end - 1;
    if (2 * begin < kL) load_lanes<T>(low, src, 2 * begin, last < kL ? last : kL);
    if (last > kL) load_lanes<T>(high, src + kL, 2 * begin > kL ? 2 * begin - kL : 0, last - kL);
    return even_lanes<T>(low, high);
  }
  Vector<T> v{};
  for (int i = begin; i < end; ++i) v[i] = src[i * step];
  return v;
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
