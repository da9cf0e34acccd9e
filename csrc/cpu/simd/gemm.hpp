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
constexpr int kSecondLevel = 2;  // __builtin_prefetch's locality of that cache
template <class T>
constexpr int kNr = kVectors * kLanes<T>;

template <class T, int kRows>
[[gnu::always_inline]] inline void tile_init(Vector<T> (&c)[kRows][kVectors], const T* init) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    c[i][0] = init != nullptr ? load(init + i * kNr<T>) : Vector<T>{};
    c[i][1] = init != nullptr ? load(init + i * kNr<T> + kLanes<T>) : Vector<T>{};
  }
}

// c[kRows][2 vectors] += left(k, row) * right(k, vector), in registers from the first k to the last: the loops over it
// must unroll, and the readers be inlined.
template <class T, int kRows, class Left, class Right>
[[gnu::always_inline]] inline void tile_sum(int64_t k, Vector<T> (&c)[kRows][kVectors], Left left, Right right) {
  for (int64_t j = 0; j < k; ++j) {
    const Vector<T> b0 = right(j, 0), b1 = right(j, 1);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const T value = left(j, i);
      c[i][0] += value * b0;
      c[i][1] += value * b1;
    }
  }
}

template <class T, int kRows>
[[gnu::always_inline]] inline void tile_finish(Vector<T> (&c)[kRows][kVectors], const Epilogue<T>& epilogue) {
  if (epilogue.row_bias != nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      c[i][0] += epilogue.row_bias[i];
      c[i][1] += epilogue.row_bias[i];
    }
  }
  if (epilogue.col_bias != nullptr) {
    const Vector<T> bias0 = load(epilogue.col_bias), bias1 = load(epilogue.col_bias + kLanes<T>);
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
}

template <class T, int kRows>
[[gnu::always_inline]] inline void tile_store(const Vector<T> (&c)[kRows][kVectors], T* out, int64_t out_stride) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    store<T>(out + i * out_stride, c[i][0]);
    store<T>(out + i * out_stride + kLanes<T>, c[i][1]);
  }
}

// The left operand lies by k, as in a panel, or by rows.
template <class T, int kRows, bool kByK>
void tile_rows(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, const T* init, T* out,
               int64_t out_stride, const Epilogue<T>& epilogue, Ahead<T> ahead) {
  Vector<T> c[kRows][kVectors];
  tile_init<T, kRows>(c, init);
  // One pointer for three rows: the others are the row stride, once and twice, away, which an address can hold.
  const T* rows[(kRows + 2) / 3];
  for (int i = 0; i < (kRows + 2) / 3; ++i) rows[i] = a + 3 * i * a_stride;
  tile_sum<T, kRows>(
      k, c, [&](int64_t j, int i) { return kByK ? a[j * a_stride + i] : rows[i / 3][j + (i % 3) * a_stride]; },
      [&](int64_t j, int vector) {
        if (vector == 0) __builtin_prefetch(ahead.data + j * ahead.step, 0, kSecondLevel);
        return load(b + j * b_stride + vector * kLanes<T>);
      });
  tile_finish<T, kRows>(c, epilogue);
  tile_store<T, kRows>(c, out, out_stride);
}

template <class T, bool kByK, int kRows = kMr>
void tile(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, const T* init, T* out,
          int64_t out_stride, int rows, const Epilogue<T>& epilogue, Ahead<T> ahead) {
  if (rows == kRows)
    return tile_rows<T, kRows, kByK>(k, a, a_stride, b, b_stride, init, out, out_stride, epilogue, ahead);
  if constexpr (kRows > 1)
    tile<T, kByK, kRows - 1>(k, a, a_stride, b, b_stride, init, out, out_stride, rows, epilogue, ahead);
}

template <class T, int kRows = kMr>
void tile_packing(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* panel, const T* init,
                  T* out, int64_t out_stride, int rows, const Epilogue<T>& epilogue) {
  if (rows != kRows) {
    if constexpr (kRows > 1)
      tile_packing<T, kRows - 1>(k, a, a_stride, b, b_stride, panel, init, out, out_stride, rows, epilogue);
    return;
  }
  constexpr int kL = kLanes<T>;
  Vector<T> c[kRows][kVectors];
  tile_init<T, kRows>(c, init);
  tile_sum<T, kRows>(
      k, c, [&](int64_t j, int i) { return a[j * a_stride + i]; },
      [&](int64_t j, int vector) {
        const T* row = b + j * b_stride + vector * kL;
        __builtin_prefetch(row + kNr<T> + kL - 1);  // of the next panel: what lies before it is in this one's lines
        const Vector<T> value = load(row);
        store<T>(panel + j * kNr<T> + vector * kL, value);
        return value;
      });
  tile_finish<T, kRows>(c, epilogue);
  tile_store<T, kRows>(c, out, out_stride);
}

template <class T, int kRows = kMr>
void tile_scattered(int64_t k, const T* a, int64_t a_stride, const int32_t* offsets, const T* b, Ahead<T> ahead, T* out,
                    int64_t out_stride, int rows, const Epilogue<T>& epilogue) {
  if (rows != kRows) {
    if constexpr (kRows > 1)
      tile_scattered<T, kRows - 1>(k, a, a_stride, offsets, b, ahead, out, out_stride, rows, epilogue);
    return;
  }
  Vector<T> c[kRows][kVectors] = {};
  const T* start[(kRows + 2) / 3];  // as in tile_rows
  for (int i = 0; i < (kRows + 2) / 3; ++i) start[i] = a + 3 * i * a_stride;
  tile_sum<T, kRows>(
      k, c, [&](int64_t j, int i) { return start[i / 3][offsets[j] + (i % 3) * a_stride]; },
      [&](int64_t j, int vector) {
        if (vector == 0) __builtin_prefetch(ahead.data + j * ahead.step);
        return load(b + j * kNr<T> + vector * kLanes<T>);
      });
  tile_finish<T, kRows>(c, epilogue);
  tile_store<T, kRows>(c, out, out_stride);
}

template <class T, int kRows = kMr>
void tile_planes(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_next, const int32_t* offsets, T* out,
                 int64_t out_stride, int64_t out_next, int rows, int lanes, const Epilogue<T>& epilogue) {
  if (rows != kRows) {
    if constexpr (kRows > 1) {
      tile_planes<T, kRows - 1>(k, a, a_stride, b, b_next, offsets, out, out_stride, out_next, rows, lanes, epilogue);
    }
    return;
  }
  Vector<T> c[kRows][kVectors] = {};
  tile_sum<T, kRows>(
      k, c, [&](int64_t j, int i) { return a[j * a_stride + i]; },
      [&](int64_t j, int vector) { return load(b + offsets[j] + vector * b_next); });
  tile_finish<T, kRows>(c, epilogue);
  for (int i = 0; i < kRows; ++i) {
    for (int vector = 0; vector < kVectors; ++vector) {
      T* row = out + i * out_stride + vector * out_next;
      if (lanes == kLanes<T>) {
        store<T>(row, c[i][vector]);
      } else {
        store_lanes<T>(row, c[i][vector], lanes);
      }
    }
  }
}

template <class T>
void copy_rows(T* out, int64_t out_stride, int64_t out_step, const T* src, int64_t src_stride, int64_t src_step,
               int64_t rows, int64_t count) {
  constexpr int kL = kLanes<T>;
  for (int64_t i = 0; i < rows; ++i, out += out_stride, src += src_stride) {
    for (int64_t first = 0; first < count; first += kL) {
      const int lanes = clamp_lanes<T>(count - first);
      const T* from = src + first * src_step;
      const Vector<T> v = src_step == 1 ? load_first<T>(from, lanes) : load_lanes_strided(from, 0, lanes, src_step);
      if (out_step == 1) {
        store_lanes<T>(out + first, v, lanes);
      } else {
        store_every_second<T>(out + 2 * first, v, lanes);
      }
    }
  }
}

// Products of rows with k along the vectors, as many as the registers hold sums of with a's rows and one of b's.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kDotRows = 4, kDotCols = 6;
#else
constexpr int kDotRows = 3, kDotCols = 4;
#endif

template <class T>
void dot(int64_t images, int64_t pixels, const T* const* a, int64_t a_image, const T* const* b, int64_t b_image,
         int64_t a_ahead, int64_t b_ahead, T* sums) {
  constexpr int kL = kLanes<T>, kCount = kDotRows * kDotCols;
  Vector<T> c[kCount] = {};
  const T *left[kDotRows], *right[kDotCols];
  for (int i = 0; i < kDotRows; ++i) left[i] = a[i];
  for (int j = 0; j < kDotCols; ++j) right[j] = b[j];
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t first = 0; first < pixels; first += kL) {
      const int count = clamp_lanes<T>(pixels - first);
      Vector<T> values[kDotRows];
#pragma GCC unroll 4
      for (int i = 0; i < kDotRows; ++i) {
        values[i] = load_first<T>(left[i] + first, count);
        __builtin_prefetch(left[i] + first + a_ahead);
      }
#pragma GCC unroll 6
      for (int j = 0; j < kDotCols; ++j) {
        const Vector<T> value = load_first<T>(right[j] + first, count);
        __builtin_prefetch(right[j] + first + b_ahead);
#pragma GCC unroll 4
        for (int i = 0; i < kDotRows; ++i) c[j * kDotRows + i] += values[i] * value;
      }
    }
    for (int i = 0; i < kDotRows; ++i) left[i] += a_image;
    for (int j = 0; j < kDotCols; ++j) right[j] += b_image;
  }
#pragma GCC unroll 12
  for (int first = 0; first < kCount; first += kL) {
    Vector<T> rows[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) rows[i] = first + i < kCount ? c[first + i] : Vector<T>{};
    const int count = kCount - first < kL ? kCount - first : kL;
    store_lanes<T>(sums + first, load_first<T>(sums + first, count) + lane_sums<T>(rows), count);
  }
}

// One row of a panel from runs of memory.
template <class T>
void pack_segments(T* row, int width, const T* base, const Segment* segments, int count, int64_t step) {
  constexpr int kL = kLanes<T>;
  if (width % kL != 0) {
    for (int i = 0; i < width; ++i) row[i] = T(0);
    for (const Segment* s = segments; s != segments + count; ++s) {
      for (int i = s->begin; i < s->end; ++i) row[i] = base[s->offset + i * step];
    }
    return;
  }
  using Mask = decltype(Vector<T>{} < Vector<T>{});
  for (int first = 0; first < width; first += kL) {
    Vector<T> v{};
    for (const Segment* s = segments; s != segments + count; ++s) {
      const int begin = clamp_lanes<T>(s->begin - first), end = clamp_lanes<T>(s->end - first);
      if (begin >= end) continue;
      const T* src = base + s->offset + first * step;
      if (step == 1 && end - begin < kL) {
        load_lanes<T>(v, src, begin, end);
      } else {  // the runs share no lane
        const Vector<T> run = load_lanes_strided(src, begin, end, step);
        v = reinterpret_cast<Vector<T>>(reinterpret_cast<Mask>(v) | reinterpret_cast<Mask>(run));
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
  const Lanes<T> some(0, width < kL ? width : kL);
  for (int64_t i = 0; i < k; ++i, src += k_stride) {
    T* out = panels + i * width;
    for (int64_t p = 0; p < whole; ++p, out += k * width) {
      if (width == kVectors * kL) {
        store<T>(out, load(src + p * width));
        store<T>(out + kL, load(src + p * width + kL));
      } else if (width <= kL) {
        some.store_to(out, some.load_from(src + p * width));
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
