// Panels of the matrix product's operands, from where these lie.
#pragma once

#include "gemm.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

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

// `count` lanes of a panel from the vectors of as many rows, by transposed squares; a null row is zeros unless kWhole.
template <class T, bool kWhole>
void pack_squares(T* panel, int width, const T* const* rows, int count, int64_t k) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first + kL <= k; first += kL, panel += kL * width) {
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      const T* row = rows[i];
      square[i] = kWhole || row != nullptr ? load(row + first) : Vector<T>{};
      if (kWhole) __builtin_prefetch(row + first + kFetchedBytes / sizeof(T));
    }
    transpose<T>(square);
    // What a whole vector writes too much is the beginning of the next row of a panel of one, which follows.
    const bool whole_vectors = count == kL || (count == width && first + 2 * kL <= k);
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      if (whole_vectors) {
        store<T>(panel + i * width, square[i]);
      } else {
        store_lanes<T>(panel + i * width, square[i], count);
      }
    }
  }
}

template <class T>
void pack_rows(T* panel, int width, const T* const* rows, int lanes, int64_t k) {
  constexpr int kL = kLanes<T>;
  for (int lane = 0; lane < width; lane += kL) {
    const int count = width - lane < kL ? width - lane : kL;
    const T* some[kL];
    bool whole = true;
    for (int i = 0; i < count; ++i) {
      some[i] = lane + i < lanes ? rows[lane + i] : nullptr;
      whole = whole && some[i] != nullptr;
    }
    for (int i = count; i < kL; ++i) some[i] = some[0];  // is not stored
    if (whole) {
      pack_squares<T, true>(panel + lane, width, some, count, k);
    } else {
      pack_squares<T, false>(panel + lane, width, some, count, k);
    }
  }
  for (int64_t at = k / kL * kL; at < k; ++at) {
    for (int lane = 0; lane < width; ++lane) {
      panel[at * width + lane] = lane < lanes && rows[lane] != nullptr ? rows[lane][at] : T(0);
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
