// Vectors of the instruction set this is built for, their loads and stores.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// Bytes of a register.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Elements of a register.
template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
using Vector [[gnu::vector_size(kVectorBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;

// As many bytes as a vector of T has lanes.
template <class T, class Byte>
using Bytes [[gnu::vector_size(kLanes<T>), gnu::aligned(1), gnu::may_alias]] = Byte;

template <class T>
Vector<T> load(const T* p) {
  return *reinterpret_cast<const Vector<T>*>(p);
}
template <class T>
void store(T* p, Vector<T> v) {
  *reinterpret_cast<Vector<T>*>(p) = v;
}

// Half as many of T as a vector of T holds, or a vector of double as it is.
template <class T>
using DoubleSource [[gnu::vector_size(kLanes<double> * sizeof(T)), gnu::aligned(alignof(T)), gnu::may_alias]] = T;

template <class T>
Vector<double> load_as_double(const T* p) {
  return __builtin_convertvector(*reinterpret_cast<const DoubleSource<T>*>(p), Vector<double>);
}

template <int kBytes>
struct IntegerOf;
template <>
struct IntegerOf<2> {
  using Type = int16_t;
};
template <>
struct IntegerOf<4> {
  using Type = int32_t;
};

// A vector of integers to one of others, as many: by steps of twice or half the width, since GCC takes longer ones lane
// by lane.
template <class To, class From>
To convert(From v) {
  constexpr int kFrom = sizeof(v[0]), kLaneCount = sizeof(From) / kFrom, kTo = sizeof(To) / kLaneCount;
  if constexpr (kFrom > 2 * kTo || kTo > 2 * kFrom) {
    constexpr int kBetween = kFrom > kTo ? kFrom / 2 : kFrom * 2;
    using Integer = typename IntegerOf<kBetween>::Type;
    typedef Integer Between [[gnu::vector_size(kLaneCount * kBetween)]];
    return convert<To>(__builtin_convertvector(v, Between));
  } else {
    return __builtin_convertvector(v, To);
  }
}

template <class T>
constexpr int clamp_lanes(int64_t value) {
  return value < 0 ? 0 : value > kLanes<T> ? kLanes<T> : static_cast<int>(value);
}

// Whether a comparison holds for any lane.
template <class Mask>
bool any(Mask lanes) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(lanes), reinterpret_cast<__m512i>(lanes)) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256(reinterpret_cast<__m256i>(lanes), reinterpret_cast<__m256i>(lanes));
#else
  for (int i = 0; i < static_cast<int>(sizeof(lanes) / sizeof(lanes[0])); ++i) {
    if (lanes[i] != 0) return true;
  }
  return false;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
template <class T>
using Mask = decltype(Vector<T>{} < Vector<T>{});
// All bits of lanes [begin, end).
template <class T>
Mask<T> lane_mask(int begin, int end) {
  Mask<T> lane{};
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = i;
  return (lane >= Mask<T>{} + begin) & (lane < Mask<T>{} + end);
}
// These lanes from base[lane], the others zero. Reads nothing outside.
template <class T>
Vector<T> load_masked(const T* base, Mask<T> mask) {
  const auto bits = reinterpret_cast<__m256i>(mask);
  if constexpr (sizeof(T) == 4) {
    return reinterpret_cast<Vector<T>>(_mm256_maskload_ps(reinterpret_cast<const float*>(base), bits));
  } else {
    return reinterpret_cast<Vector<T>>(_mm256_maskload_pd(reinterpret_cast<const double*>(base), bits));
  }
}
#endif

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
#elif defined(__AVX2__)
  const Mask<T> mask = lane_mask<T>(begin, end);
  v = mask ? load_masked(base, mask) : v;
#else
  for (int i = begin; i < end; ++i) v[i] = base[i];
#endif
}

// The first `count` lanes from base, the others zero. Reads nothing outside.
template <class T>
Vector<T> load_first(const T* base, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(0xFFFFu >> (16 - count)), base));
  } else {
    return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(0xFFu >> (8 - count)), base));
  }
#else
  if (count == kLanes<T>) return load(base);
  Vector<T> v{};
  load_lanes<T>(v, base, 0, count);
  return v;
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
  if (count == kLanes<T>) return store<T>(p, v);
#if defined(__AVX2__)
  // By halves of what is left: a store through a mask takes a Zen 3 seven times as long.
  const int bytes = count * static_cast<int>(sizeof(T));
  const auto whole = reinterpret_cast<__m256i>(v);
  auto* out = reinterpret_cast<char*>(p);
  __m128i part = _mm256_castsi256_si128(whole);
  if ((bytes & 16) != 0) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), part);
    part = _mm256_extracti128_si256(whole, 1);
    out += 16;
  }
  if ((bytes & 8) != 0) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), part);
    part = _mm_unpackhi_epi64(part, part);
    out += 8;
  }
  if ((bytes & 4) != 0) _mm_storeu_si32(out, part);
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
#endif
}

// Lanes [begin, end) of a vector, to be loaded or stored many times.
template <class T>
class Lanes {
 public:
  Lanes() = default;
#if defined(__AVX512F__)
  Lanes(int begin, int end)
      : mask_(static_cast<Bits>(end > begin ? (kAll >> (kLanes<T> - end)) & (kAll << begin) : 0)) {}
  Lanes when(bool some) const {
    Lanes lanes = *this;
    lanes.mask_ &= static_cast<Bits>(-static_cast<int>(some));
    return lanes;
  }
  Vector<T> load_from(const T* base) const {
    if constexpr (sizeof(T) == 4) {
      return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_ps(mask_, base));
    } else {
      return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_pd(mask_, base));
    }
  }
  void store_to(T* base, Vector<T> v) const {
    if constexpr (sizeof(T) == 4) {
      _mm512_mask_storeu_ps(base, mask_, reinterpret_cast<__m512>(v));
    } else {
      _mm512_mask_storeu_pd(base, mask_, reinterpret_cast<__m512d>(v));
    }
  }
  template <class Byte>
  Bytes<T, Byte> load_bytes_from(const Byte* base) const {
    const __m128i bytes = _mm_maskz_loadu_epi8(mask_, base);
    Bytes<T, Byte> v;
    __builtin_memcpy(&v, &bytes, sizeof v);
    return v;
  }

 private:
  using Bits = std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>;
  static constexpr unsigned kAll = (1u << kLanes<T>)-1;
  Bits mask_;
#else
  Lanes(int begin, int end) : begin_(begin), end_(end > begin ? end : begin) {
#if defined(__AVX2__)
    mask_ = lane_mask<T>(begin_, end_);
#endif
  }
  // These lanes, or no lane at all.
  Lanes when(bool some) const { return some ? *this : Lanes(0, 0); }
  // The others are zero. Reads nothing outside.
  [[gnu::always_inline]] Vector<T> load_from(const T* base) const {
#if defined(__AVX2__)
    return load_masked(base, mask_);
#else
    return begin_ == 0 && end_ == kLanes<T> ? load(base) : load_some(base);
#endif
  }
  [[gnu::always_inline]] void store_to(T* base, Vector<T> v) const {
    if (begin_ == 0) return store_lanes<T>(base, v, end_);
    for (int i = begin_; i < end_; ++i) base[i] = v[i];
  }
  // As many bytes as these lanes, the others zero.
  template <class Byte>
  Bytes<T, Byte> load_bytes_from(const Byte* base) const {
    Bytes<T, Byte> v{};
    if (begin_ == 0 && end_ == kLanes<T>) return *reinterpret_cast<const Bytes<T, Byte>*>(base);
    for (int i = begin_; i < end_; ++i) v[i] = base[i];
    return v;
  }

 private:
  // Lane by lane, and not in every loop that loads: edges are few, and compilers take long over them.
  [[gnu::noinline]] Vector<T> load_some(const T* base) const {
    Vector<T> v{};
    load_lanes<T>(v, base, begin_, end_);
    return v;
  }

  int begin_, end_;
#if defined(__AVX2__)
  Mask<T> mask_;
#endif
#endif
};

template <class T>
Vector<T> relu_if(bool relu, Vector<T> v) {
  return relu ? (v < 0 ? Vector<T>{} : v) : v;  // NaN stays NaN
}

// Those of lanes [0, limit) that are cells [0, width) of a row when lane 0 is cell `first`.
template <class T>
Lanes<T> lanes_inside(int64_t first, int64_t width, int64_t limit) {
  const int64_t end = width - first < limit ? width - first : limit;
  return {clamp_lanes<T>(-first), clamp_lanes<T>(end)};
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
