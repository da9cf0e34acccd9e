#include "layout.hpp"

#include "float_tables.hpp"
#include "prefetch.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// Elements of each plane that are fetched ahead of those transposed: more planes than the hardware follows.
constexpr int kPrefetched = 64;

template <class T>
void planes_to_pixels(T* pixels, int64_t pixel_stride, const T* planes, int64_t channel_stride, int channels,
                      int64_t count) {
  constexpr int kL = kLanes<T>;
  int64_t first = 0;
  for (; first + kL <= count; first += kL) {
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) {
      const T* cells = planes + i * channel_stride + first;
      square[i] = i < channels ? load(cells) : Vector<T>{};
      __builtin_prefetch(cells + kPrefetched);
    }
    transpose<T>(square);
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) store<T>(pixels + (first + i) * pixel_stride, square[i]);
  }
  if (first == count) return;
  Vector<T> square[kL];
#pragma GCC unroll 16
  for (int i = 0; i < kL; ++i) {
    square[i] = Vector<T>{};
    if (i < channels) load_lanes<T>(square[i], planes + i * channel_stride + first, 0, static_cast<int>(count - first));
  }
  transpose<T>(square);
  for (int i = 0; first + i < count; ++i) store<T>(pixels + (first + i) * pixel_stride, square[i]);
}

template <class T>
void pixels_to_planes(T* planes, int64_t channel_stride, const T* pixels, int64_t pixel_stride, int channels,
                      int64_t count) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    const int length = clamp_lanes<T>(count - first);
    Vector<T> square[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) square[i] = i < length ? load(pixels + (first + i) * pixel_stride) : Vector<T>{};
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

// All panels advance together: the lanes of one k are neighbours in memory.
template <class T>
void pack_lanes(T* panels, int width, const T* src, int64_t k_stride, int64_t lanes, int64_t k) {
  constexpr int kL = kLanes<T>;
  const int64_t whole = lanes / width;
  const Lanes<T> some(0, width < kL ? width : kL);
  for (int64_t i = 0; i < k; ++i, src += k_stride) {
    T* out = panels + i * width;
    for (int64_t p = 0; p < whole; ++p, out += k * width) {
      if (width == 2 * kL) {
        store<T>(out, load(src + p * width));
        store<T>(out + kL, load(src + p * width + kL));
      } else if (width <= kL) {
        some.store_to(out, some.load_from(src + p * width));
      } else {
        for (int lane = 0; lane < width; ++lane) out[lane] = src[p * width + lane];
      }
    }
    const int64_t rest = lanes - whole * width;
    for (int first = 0; rest > 0 && first < width; first += kL) {
      const int count = clamp_lanes<T>(rest - first);
      const Vector<T> v = count > 0 ? load_first<T>(src + whole * width + first, count) : Vector<T>{};
      store_lanes<T>(out + first, v, clamp_lanes<T>(width - first));
    }
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
void copy_padded(T* out, int64_t out_stride, int64_t width, const T* src, int64_t src_stride, int64_t step,
                 int64_t begin, int64_t end, int64_t rows, int64_t ahead) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < width; first += kL, out += kL, src += kL * step) {
    const int from = clamp_lanes<T>(begin - first), to = clamp_lanes<T>(end - first);
    const auto copy = [&](auto load_row) __attribute__((always_inline)) {
      for (int64_t i = 0; i < rows; ++i) {
        store<T>(out + i * out_stride, load_row(src + i * src_stride));
        if (ahead != 0) {
          __builtin_prefetch(src + i * src_stride + ahead, 0, kSecondLevel);
          if (step == 2) __builtin_prefetch(src + i * src_stride + ahead + kL, 0, kSecondLevel);
        }
      }
    };
    if (from >= to) {
      copy([](const T*) { return Vector<T>{}; });
    } else if (step == 1 && to - from == kL) {
      copy([](const T* cells) { return load(cells); });
    } else if (step == 1) {
      copy([=](const T* cells) { return load_strided<T, 1>(cells, from, to); });
    } else if (step == 2) {
      copy([=](const T* cells) { return load_strided<T, 2>(cells, from, to); });
    } else {
      copy([=](const T* cells) { return load_lanes_strided(cells, from, to, step); });
    }
  }
}

template <class T>
void pack_runs(T* panel, int width, const T* staged, int64_t row, const int32_t* taps, int tap_count, int64_t begin,
               int64_t end, const StagedRun* runs, int run_count) {
  constexpr int kL = kLanes<T>;
  const StagedRun* const last = runs + run_count;
  staged += begin / tap_count * row;
  int tap = static_cast<int>(begin % tap_count);
  for (int64_t k = begin; k < end; ++k, panel += width) {
    const T* cells = staged + taps[tap];
    if ((end - k) * width >= width + kL) {
      // What a vector writes beyond its run is the beginning of the next one, or of the next rows.
      for (const StagedRun* run = runs; run != last; ++run) {
        for (int i = run->begin; i < run->end; i += kL) store<T>(panel + i, load(cells + run->source + i));
      }
    } else {
      for (const StagedRun* run = runs; run != last; ++run) {
        for (int i = run->begin; i < run->end; i += kL)
          store_lanes<T>(panel + i, load(cells + run->source + i), clamp_lanes<T>(width - i));
      }
    }
    for (int i = runs[run_count - 1].end; i < width; i += kL)
      store_lanes<T>(panel + i, Vector<T>{}, clamp_lanes<T>(width - i));
    if (++tap == tap_count) {
      tap = 0;
      staged += row;
    }
  }
}

template <class T>
constexpr LayoutKernels<T> kLayout{kLanes<T>,     planes_to_pixels<T>, pixels_to_planes<T>, copy_rows<T>,
                                   pack_lanes<T>, pack_rows<T>,        copy_padded<T>,      pack_runs<T>};

}  // namespace

extern const FloatTables<LayoutKernels> layout;
const FloatTables<LayoutKernels> layout{kLayout<float>, kLayout<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
