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

template <class T>
constexpr int clamp_lanes(int64_t value) {
  return value < 0 ? 0 : value > kLanes<T> ? kLanes<T> : static_cast<int>(value);
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

// Lanes [begin, end) of a vector, to be loaded or stored many times.
template <class T>
class Lanes {
 public:
  Lanes(int begin, int end) : begin_(begin), end_(end > begin ? end : begin) {}
  // The others are zero. Reads nothing outside.
  Vector<T> load_from(const T* base) const {
    if (begin_ == 0 && end_ == kLanes<T>) return load(base);
    Vector<T> v{};
    if (begin_ < end_) load_lanes<T>(v, base, begin_, end_);
    return v;
  }
  void store_to(T* base, Vector<T> v) const {
    if (begin_ == 0 && end_ == kLanes<T>) return store<T>(base, v);
    for (int i = begin_; i < end_; ++i) base[i] = v[i];
  }

 private:
  int begin_, end_;
};

#if defined(__AVX512F__)
template <>
class Lanes<float> {
 public:
  Lanes(int begin, int end)
      : mask_(static_cast<__mmask16>(end > begin ? (0xFFFFu >> (16 - end)) & (0xFFFFu << begin) : 0)) {}
  Vector<float> load_from(const float* base) const {
    return reinterpret_cast<Vector<float>>(_mm512_maskz_loadu_ps(mask_, base));
  }
  void store_to(float* base, Vector<float> v) const { _mm512_mask_storeu_ps(base, mask_, reinterpret_cast<__m512>(v)); }

 private:
  __mmask16 mask_;
};
#endif

// Those of lanes [0, limit) that are cells [0, width) of a row when lane 0 is cell `first`.
template <class T>
Lanes<T> lanes_inside(int64_t first, int64_t width, int64_t limit) {
  const int64_t end = width - first < limit ? width - first : limit;
  return {clamp_lanes<T>(-first), clamp_lanes<T>(end)};
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
