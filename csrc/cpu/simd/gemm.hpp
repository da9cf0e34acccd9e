// The micro-kernel of the matrix product, and the packing of its operands.
#pragma once

#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// The tile is kMr rows of two vectors. Its accumulators, the two vectors of b and a broadcast of a fill the registers:
// 28 + 3 of 32, or 12 + 3 of 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMr = 14;
#else
constexpr int kMr = 6;
#endif
constexpr int kVectors = 2;
template <class T>
constexpr int kNr = kVectors * kLanes<T>;

// c[kRows][2 vectors] stays in registers from the first k to the last; the loops over it must unroll. The left operand
// lies by k, as in a panel, or by rows.
template <class T, int kRows, bool kByK>
void tile_rows(int64_t k, const T* a, int64_t a_stride, const T* b, const T* init, T* out, int64_t out_stride,
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
  for (int i = 0; i < (kRows + 2) / 3; ++i) rows[i] = a + 3 * i * a_stride;
  for (int64_t j = 0; j < k; ++j, b += kNr<T>) {
    const Vector<T> b0 = load(b), b1 = load(b + kL);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const T value = kByK ? a[j * a_stride + i] : rows[i / 3][j + (i % 3) * a_stride];
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

template <class T, bool kByK, int kRows = kMr>
void tile(int64_t k, const T* a, int64_t a_stride, const T* b, const T* init, T* out, int64_t out_stride, int rows,
          const Epilogue<T>& epilogue) {
  if (rows == kRows) return tile_rows<T, kRows, kByK>(k, a, a_stride, b, init, out, out_stride, epilogue);
  if constexpr (kRows > 1) tile<T, kByK, kRows - 1>(k, a, a_stride, b, init, out, out_stride, rows, epilogue);
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

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
