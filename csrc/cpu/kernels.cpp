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

// c[kRows][2 vectors] stays in registers from the first k to the last; the loops over it must unroll. The left operand
// is a packed panel [k][kMr], or rows `row_stride` apart.
template <class T, int kRows, bool kPacked>
void tile_rows(int64_t k, const T* a, int64_t row_stride, const T* b, const T* init, T* out, int64_t out_stride,
               const Epilogue<T>& epilogue) {
  constexpr int kL = kLanes<T>;
  Vector<T> c[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    c[i][0] = init != nullptr ? load(init + i * kNr<T>) : Vector<T>{};
    c[i][1] = init != nullptr ? load(init + i * kNr<T> + kL) : Vector<T>{};
  }
  // One pointer for three rows: the others are the row stride, once and twice, away, which an address can hold.
  const T* rows[(kRows + 2) / 3];
  for (int i = 0; i < (kRows + 2) / 3; ++i) rows[i] = a + 3 * i * row_stride;
  for (int64_t j = 0; j < k; ++j, b += kNr<T>) {
    const Vector<T> b0 = load(b), b1 = load(b + kL);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const T value = kPacked ? a[j * kMr + i] : rows[i / 3][j + (i % 3) * row_stride];
      c[i][0] += value * b0;
      c[i][1] += value * b1;
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

template <class T, bool kPacked, int kRows = kMr>
void tile(int64_t k, const T* a, int64_t row_stride, const T* b, const T* init, T* out, int64_t out_stride, int rows,
          const Epilogue<T>& epilogue) {
  if (rows == kRows) return tile_rows<T, kRows, kPacked>(k, a, row_stride, b, init, out, out_stride, epilogue);
  if constexpr (kRows > 1) tile<T, kPacked, kRows - 1>(k, a, row_stride, b, init, out, out_stride, rows, epilogue);
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
  constexpr int kL = kLanes<T>;
  int64_t first = 0;
  for (; first + kL <= k; first += kL) {
    for (int lane = 0; lane < width; lane += kL) {
      Vector<T> square[kL];
#pragma GCC unroll 16
      for (int i = 0; i < kL; ++i) {
        const T* row = lane + i < lanes ? rows[lane + i] : nullptr;
        square[i] = row != nullptr ? load(row + first) : Vector<T>{};
      }
      transpose<T>(square);
      const int count = width - lane < kL ? width - lane : kL;
      T* out = panel + first * width + lane;
#pragma GCC unroll 16
      for (int i = 0; i < kL; ++i) {
        if (count == kL) {
          store<T>(out + i * width, square[i]);
        } else {
          store_lanes<T>(out + i * width, square[i], count);
        }
      }
    }
  }
  for (; first < k; ++first) {
    for (int lane = 0; lane < width; ++lane) {
      panel[first * width + lane] = lane < lanes && rows[lane] != nullptr ? rows[lane][first] : T(0);
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

template <class T>
void planes_to_pixels(T* pixels, const T* planes, int64_t channel_stride, int channels, int64_t count) {
  constexpr int kL = kLanes<T>;
  int64_t first = 0;
  for (; first + kL <= count; first += kL) {
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) square[i] = i < channels ? load(planes + i * channel_stride + first) : Vector<T>{};
    transpose<T>(square);
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) store<T>(pixels + (first + i) * kL, square[i]);
  }
  if (first == count) return;
  Vector<T> square[kL];
#pragma GCC unroll 16
  for (int i = 0; i < kL; ++i) {
    square[i] = Vector<T>{};
    if (i < channels) load_lanes<T>(square[i], planes + i * channel_stride + first, 0, static_cast<int>(count - first));
  }
  transpose<T>(square);
  for (int i = 0; first + i < count; ++i) store<T>(pixels + (first + i) * kL, square[i]);
}

template <class T>
void pixels_to_planes(T* planes, const T* pixels, int64_t channel_stride, int channels, int64_t count) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    const int length = clamp_lanes<T>(count - first);
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) square[i] = i < length ? load(pixels + (first + i) * kL) : Vector<T>{};
    transpose<T>(square);
    for (int i = 0; i < channels; ++i) {
      if (length == kL) {
        store<T>(planes + i * channel_stride + first, square[i]);
      } else {
        store_lanes<T>(planes + i * channel_stride + first, square[i], length);
      }
    }
  }
}

// The one-dimensional transforms of F(4, 3) (Lavin and Gray, arXiv 1509.09308), of vectors `from` apart to vectors `to`
// apart; two dimensions are columns, then rows. They interpolate at the points 0, a, -a, b, -b and infinity. The usual
// points 0, 1, -1, 2, -2 save some multiplications and round four times worse.
template <class T>
constexpr T kA = static_cast<T>(0.75);
template <class T>
constexpr T kB = static_cast<T>(1.5);
template <class T>
constexpr T kA2 = kA<T> * kA<T>;
template <class T>
constexpr T kB2 = kB<T> * kB<T>;

template <class T>
void winograd_input_1d(const Vector<T>* d, int from, Vector<T>* v, int to) {
  const Vector<T> d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
  const Vector<T> even_a = d4 - kB2<T> * d2, odd_a = kA<T> * (d3 - kB2<T> * d1);
  const Vector<T> even_b = d4 - kA2<T> * d2, odd_b = kB<T> * (d3 - kA2<T> * d1);
  v[0] = kA2<T> * kB2<T> * d0 - (kA2<T> + kB2<T>)*d2 + d4;
  v[to] = even_a + odd_a;
  v[2 * to] = even_a - odd_a;
  v[3 * to] = even_b + odd_b;
  v[4 * to] = even_b - odd_b;
  v[5 * to] = kA2<T> * kB2<T> * d1 - (kA2<T> + kB2<T>)*d3 + d5;
}

template <class T>
void winograd_output_1d(const Vector<T>* m, int from, Vector<T>* y, int to) {
  const Vector<T> even_a = m[from] + m[2 * from], odd_a = m[from] - m[2 * from];
  const Vector<T> even_b = m[3 * from] + m[4 * from], odd_b = m[3 * from] - m[4 * from];
  y[0] = m[0] + even_a + even_b;
  y[to] = kA<T> * odd_a + kB<T> * odd_b;
  y[2 * to] = kA2<T> * even_a + kB2<T> * even_b;
  y[3 * to] = kA2<T> * kA<T> * odd_a + kB2<T> * kB<T> * odd_b + m[5 * from];
}

template <class T>
void winograd_filter_1d(const Vector<T>* g, int from, Vector<T>* u, int to) {
  constexpr T kScaleA = 1 / (2 * kA2<T> * (kA2<T> - kB2<T>)), kScaleB = 1 / (2 * kB2<T> * (kB2<T> - kA2<T>));
  const Vector<T> g0 = g[0], g1 = g[from], g2 = g[2 * from];
  const Vector<T> even_a = kScaleA * g0 + kScaleA * kA2<T> * g2, odd_a = kScaleA * kA<T> * g1;
  const Vector<T> even_b = kScaleB * g0 + kScaleB * kB2<T> * g2, odd_b = kScaleB * kB<T> * g1;
  u[0] = 1 / (kA2<T> * kB2<T>)*g0;
  u[to] = even_a + odd_a;
  u[2 * to] = even_a - odd_a;
  u[3 * to] = even_b + odd_b;
  u[4 * to] = even_b - odd_b;
  u[5 * to] = g2;
}

template <class T>
void winograd_input(T* v, int64_t stride, const T* d, int64_t row_stride) {
  constexpr int kL = kLanes<T>;
  Vector<T> columns[36], rows[6];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Vector<T> column[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = load(d + i * row_stride + j * kL);
    winograd_input_1d<T>(column, 1, columns + j, 6);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    winograd_input_1d<T>(columns + 6 * i, 1, rows, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store<T>(v + (6 * i + j) * stride, rows[j]);
  }
}

template <class T>
void winograd_output(T* y, int64_t row_stride, const T* m, int64_t stride, const T* bias, bool relu) {
  constexpr int kL = kLanes<T>;
  Vector<T> columns[24], row[4];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Vector<T> column[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) column[i] = load(m + (6 * i + j) * stride);
    winograd_output_1d<T>(column, 1, columns + j, 6);
  }
  const Vector<T> b = load(bias);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    winograd_output_1d<T>(columns + 6 * i, 1, row, 1);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vector<T> value = row[j] + b;
      store<T>(y + i * row_stride + j * kL, relu ? (value < 0 ? Vector<T>{} : value) : value);
    }
  }
}

template <class T>
void winograd_filter(T* u, int64_t stride, const T* g, int64_t tap_stride) {
  Vector<T> columns[18], row[6];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
    Vector<T> column[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) column[i] = load(g + (3 * i + j) * tap_stride);
    winograd_filter_1d<T>(column, 1, columns + j, 3);
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    winograd_filter_1d<T>(columns + 3 * i, 1, row, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store<T>(u + (6 * i + j) * stride, row[j]);
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
constexpr GemmKernels<T> kGemm{kMr, kNr<T>, tile<T, true>, tile<T, false>, pack_lanes<T>, pack_rows<T>, pack_taps<T>};

template <class T>
constexpr DepthwiseKernels<T> kDepthwise{depthwise_row<T>, depthwise_pixel<T>};
template <class T>
constexpr PoolKernels<T> kPool{max_row<T>};
template <class T>
constexpr WinogradKernels<T> kWinograd{kLanes<T>,         planes_to_pixels<T>, pixels_to_planes<T>,
                                       winograd_input<T>, winograd_output<T>,  winograd_filter<T>};

}  // namespace

extern const Kernels kernels;
const Kernels kernels{FASTCONV_STRING(FASTCONV_ISA),
                      kGemm<float>,
                      kGemm<double>,
                      kDepthwise<float>,
                      kDepthwise<double>,
                      kPool<float>,
                      kPool<double>,
                      kWinograd<float>,
                      kWinograd<double>,
                      fma<float>,
                      fma<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
