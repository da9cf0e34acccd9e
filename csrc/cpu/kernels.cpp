// Built once per instruction set, with FASTCONV_ISA the namespace and name of it. Includes nothing whose inline
// functions another object could share: the linker would keep one copy, perhaps the one with instructions that the CPU
// lacks.
#include "kernels.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define FASTCONV_STRING_(x) #x
#define FASTCONV_STRING(x) FASTCONV_STRING_(x)

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// The tile is kMr rows of two vectors. Its accumulators, the two vectors of b and a broadcast of a fill the registers:
// 28 + 3 of 32, or 12 + 3 of 16.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kMr = 14;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kMr = 6;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kMr = 14;
#else
constexpr int kVectorBytes = 16, kMr = 6;
#endif
constexpr int kVectors = 2;

template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);
template <class T>
constexpr int kNr = kVectors * kLanes<T>;

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

// c[kRows][2 vectors] stays in registers from the first k to the last; the loops over it must unroll.
template <class T, int kRows>
void tile_rows(int64_t k, const T* a, const T* b, const T* init, T* out, int64_t out_stride,
               const Epilogue<T>& epilogue) {
  constexpr int kL = kLanes<T>;
  Vector<T> c[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    c[i][0] = init != nullptr ? load(init + i * kNr<T>) : Vector<T>{};
    c[i][1] = init != nullptr ? load(init + i * kNr<T> + kL) : Vector<T>{};
  }
  for (; k > 0; --k, a += kMr, b += kNr<T>) {
    const Vector<T> b0 = load(b), b1 = load(b + kL);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      c[i][0] += a[i] * b0;
      c[i][1] += a[i] * b1;
    }
  }
  if (epilogue.row_bias != nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      c[i][0] += epilogue.row_bias[i];
      c[i][1] += epilogue.row_bias[i];
    }
  }
  if (epilogue.col_bias != nullptr) {
    const Vector<T> bias0 = load(epilogue.col_bias), bias1 = load(epilogue.col_bias + kL);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      c[i][0] += bias0;
      c[i][1] += bias1;
    }
  }
  if (epilogue.relu) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      c[i][0] = c[i][0] < 0 ? Vector<T>{} : c[i][0];  // NaN stays NaN
      c[i][1] = c[i][1] < 0 ? Vector<T>{} : c[i][1];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    store<T>(out + i * out_stride, c[i][0]);
    store<T>(out + i * out_stride + kL, c[i][1]);
  }
}

template <class T, int kRows = kMr>
void tile(int64_t k, const T* a, const T* b, const T* init, T* out, int64_t out_stride, int rows,
          const Epilogue<T>& epilogue) {
  if (rows == kRows) return tile_rows<T, kRows>(k, a, b, init, out, out_stride, epilogue);
  if constexpr (kRows > 1) tile<T, kRows - 1>(k, a, b, init, out, out_stride, rows, epilogue);
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

template <class T>
constexpr int clamp_lanes(int64_t value) {
  return value < 0 ? 0 : value > kLanes<T> ? kLanes<T> : static_cast<int>(value);
}

// One row of a panel from runs of memory.
template <class T>
void pack_segments(T* row, int width, const T* base, const Segment* segments, int count, int64_t step) {
  constexpr int kL = kLanes<T>;
  if (step != 1 || width % kL != 0) {
    for (int i = 0; i < width; ++i) row[i] = T(0);
    for (const Segment* s = segments; s != segments + count; ++s) {
      for (int i = s->begin; i < s->end; ++i) row[i] = base[s->offset + i * step];
    }
    return;
  }
  for (int first = 0; first < width; first += kL) {
    Vector<T> v{};
    for (const Segment* s = segments; s != segments + count; ++s) {
      const int begin = clamp_lanes<T>(s->begin - first), end = clamp_lanes<T>(s->end - first);
      if (begin == 0 && end == kL) {
        v = load(base + s->offset + first);
      } else if (begin < end) {
        load_lanes<T>(v, base + s->offset + first, begin, end);
      }
    }
    store<T>(row + first, v);
  }
}

// All panels advance together: the lanes of one k are neighbours in memory.
template <class T>
void pack_lanes(T* panels, int width, const T* src, int64_t k_stride, int64_t lanes, int64_t k) {
  constexpr int kL = kLanes<T>;
  const int64_t whole = lanes / width;
  for (int64_t i = 0; i < k; ++i, src += k_stride) {
    T* out = panels + i * width;
    for (int64_t p = 0; p < whole; ++p, out += k * width) {
      if (width == kVectors * kL) {
        store<T>(out, load(src + p * width));
        store<T>(out + kL, load(src + p * width + kL));
      } else {
        for (int lane = 0; lane < width; ++lane) out[lane] = src[p * width + lane];
      }
    }
    if (whole * width == lanes) continue;
    const Segment rest{whole * width, 0, static_cast<int>(lanes - whole * width)};
    pack_segments(out, width, src, &rest, 1, 1);
  }
}

template <class T>
void pack_rows(T* panel, int width, const T* const* rows, int lanes, int64_t k) {
  constexpr int64_t kStep = 16;  // a row's cache line at a time
  for (int64_t first = 0; first < k; first += kStep) {
    const int64_t count = k - first < kStep ? k - first : kStep;
    T* out = panel + first * width;
    for (int i = 0; i < width; ++i) {
      const T* row = i < lanes ? rows[i] : nullptr;
      for (int64_t j = 0; j < count; ++j) out[j * width + i] = row != nullptr ? row[first + j] : T(0);
    }
  }
}

template <class T>
void pack_taps(T* panel, int width, const T* base, int64_t channel_stride, int64_t channels, const Segment* segments,
               int segments_per_tap, int taps, int64_t step) {
  for (int64_t c = 0; c < channels; ++c, base += channel_stride) {
    for (int tap = 0; tap < taps; ++tap, panel += width) {
      pack_segments(panel, width, base, segments + tap * segments_per_tap, segments_per_tap, step);
    }
  }
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
Vector<T> load_tap(const RowTap<T>& tap, int64_t first, int64_t step) {
  constexpr int kL = kLanes<T>;
  const T* src = tap.src + first * step;
  const int begin = clamp_lanes<T>(tap.begin - first), end = clamp_lanes<T>(tap.end - first);
  if (step == 1) {
    if (begin == 0 && end == kL) return load(src);
    Vector<T> v{};
    if (begin < end) load_lanes<T>(v, src, begin, end);
    return v;
  }
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

template <class T>
void depthwise_row(T* out, int64_t out_step, int64_t count, const RowTap<T>* taps, const T* weights, int64_t tap_count,
                   int64_t step, T bias, bool relu) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    Vector<T> sum = Vector<T>{} + bias;
    for (int64_t t = 0; t < tap_count; ++t) sum += weights[t] * load_tap(taps[t], first, step);
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

template <class T>
constexpr T kLowest = static_cast<T>(-__builtin_inf());

template <class T>
void max_row(T* best, int32_t* tap, int64_t count, const RowTap<T>* taps, const int32_t* numbers, int64_t tap_count,
             int64_t step) {
  constexpr int kL = kLanes<T>;
  using Mask = decltype(Vector<T>{} < Vector<T>{});
  using Lane = decltype(Mask{}[0] + 0);
  Mask lanes{};
  for (int i = 0; i < kL; ++i) lanes[i] = i;
  for (int64_t first = 0; first < count; first += kL) {
    Vector<T> b = Vector<T>{} + kLowest<T>;
    Mask number = Mask{} - 1;
    for (int64_t t = 0; t < tap_count; ++t) {
      const Vector<T> value = load_tap(taps[t], first, step);
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

// 12 chains of vectors hide the latency of a fused multiply-add on two ports and fit 16 registers.
template <class T>
double fma(int64_t rounds) {
  constexpr int kChains = 12;
  Vector<T> sums[kChains] = {};
  Vector<T> a = Vector<T>{} + static_cast<T>(0.5), b = Vector<T>{} + static_cast<T>(0.25);
  asm volatile("" : "+m"(a), "+m"(b));  // unknown to the compiler
  const Vector<T> factor = a, term = b;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sums[j] = sums[j] * factor + term;
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "m"(sums[j]));  // used, as far as the compiler knows
  return 2.0 * kChains * kLanes<T> * static_cast<double>(rounds);
}

template <class T>
constexpr GemmKernels<T> kGemm{kMr, kNr<T>, tile<T>, pack_lanes<T>, pack_rows<T>, pack_taps<T>};

template <class T>
constexpr DepthwiseKernels<T> kDepthwise{depthwise_row<T>, depthwise_pixel<T>};
template <class T>
constexpr PoolKernels<T> kPool{max_row<T>};

}  // namespace

extern const Kernels kernels;
const Kernels kernels{FASTCONV_STRING(FASTCONV_ISA),
                      kGemm<float>,
                      kGemm<double>,
                      kDepthwise<float>,
                      kDepthwise<double>,
                      kPool<float>,
                      kPool<double>,
                      fma<float>,
                      fma<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
