// Convolutions of one channel a group, any filter. Lanes are channels where these lie last, else outputs of a row.
#include "depthwise.hpp"

#include "depthwise_pixels3x3.hpp"
#include "depthwise_planes3x3.hpp"
#include "float_tables.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// kOutputs neighbours of a row: each vector of weights is read once for all, and their sums hide each other's latency.
template <class T, int kOutputs>
void depthwise_pixels_block(const PixelRectangle<T>& r, const T* x, T* y, const Lanes<T>& channels, const T* weights,
                            Vector<T> bias, bool relu) {
  Vector<T> sum[kOutputs];
#pragma GCC unroll 8
  for (int i = 0; i < kOutputs; ++i) sum[i] = bias;
  for (const PixelTap* tap = r.taps; tap != r.taps + r.tap_count; ++tap) {
    const Vector<T> weight = load(weights + tap->number * kLanes<T>);
    const T* cell = x + tap->offset;
#pragma GCC unroll 8
    for (int i = 0; i < kOutputs; ++i) sum[i] += weight * channels.load_from(cell + i * r.x_column);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kOutputs; ++i) channels.store_to(y + i * r.y_column, relu_if<T>(relu, sum[i]));
}

template <class T>
void depthwise_pixels_row(const PixelRectangle<T>& r, const T* x, T* y, const Lanes<T>& channels, const T* weights,
                          const T* bias, bool relu) {
  const Vector<T> b = load(bias);
  int64_t i = 0;
  for (; i + 8 <= r.columns; i += 8, x += 8 * r.x_column, y += 8 * r.y_column)
    depthwise_pixels_block<T, 8>(r, x, y, channels, weights, b, relu);
  if (i + 4 <= r.columns) {
    depthwise_pixels_block<T, 4>(r, x, y, channels, weights, b, relu);
    i += 4, x += 4 * r.x_column, y += 4 * r.y_column;
  }
  for (; i < r.columns; ++i, x += r.x_column, y += r.y_column)
    depthwise_pixels_block<T, 1>(r, x, y, channels, weights, b, relu);
}

template <class T>
void depthwise_pixels(const PixelRectangle<T>& r, int64_t channels, int64_t taps, const T* weights, bool relu) {
  constexpr int kL = kLanes<T>;
  for (int64_t row = 0; row < r.rows; ++row) {
    const T* block = weights;
    for (int64_t c = 0; c < channels; c += kL, block += (taps + 1) * kL) {
      const Lanes<T> lanes(0, clamp_lanes<T>(channels - c));
      depthwise_pixels_row(r, r.x + row * r.x_row + c, r.y + row * r.y_row + c, lanes, block, block + taps * kL, relu);
    }
  }
}

// The sums of kTaps taps stay in registers over a row of outputs.
template <class T, int kTaps>
void depthwise_reduce_taps(const PixelRectangle<T>& r, const T* x, const T* y, const PixelTap* taps,
                           const Lanes<T>& channels, T* sums) {
  Vector<T> sum[kTaps];
  int64_t offset[kTaps];
#pragma GCC unroll 9
  for (int t = 0; t < kTaps; ++t) {
    sum[t] = load(sums + taps[t].number * kLanes<T>);
    offset[t] = taps[t].offset;
  }
  for (int64_t i = 0; i < r.columns; ++i, x += r.x_column, y += r.y_column) {
    const Vector<T> gradient = channels.load_from(y);
#pragma GCC unroll 9
    for (int t = 0; t < kTaps; ++t) sum[t] += gradient * channels.load_from(x + offset[t]);
  }
#pragma GCC unroll 9
  for (int t = 0; t < kTaps; ++t) store<T>(sums + taps[t].number * kLanes<T>, sum[t]);
}

template <class T>
void depthwise_reduce_pixels(const PixelRectangle<T>& r, int64_t channels, int64_t taps, T* sums) {
  constexpr int kL = kLanes<T>;
  for (int64_t row = 0; row < r.rows; ++row) {
    T* block = sums;
    for (int64_t c = 0; c < channels; c += kL, block += taps * kL) {
      const Lanes<T> lanes(0, clamp_lanes<T>(channels - c));
      const T *x = r.x + row * r.x_row + c, *y = r.y + row * r.y_row + c;
      int64_t t = 0;
      for (; t + 9 <= r.tap_count; t += 9) depthwise_reduce_taps<T, 9>(r, x, y, r.taps + t, lanes, block);
      if (t + 6 <= r.tap_count) {
        depthwise_reduce_taps<T, 6>(r, x, y, r.taps + t, lanes, block);
        t += 6;
      }
      if (t + 4 <= r.tap_count) {
        depthwise_reduce_taps<T, 4>(r, x, y, r.taps + t, lanes, block);
        t += 4;
      }
      for (; t < r.tap_count; ++t) depthwise_reduce_taps<T, 1>(r, x, y, r.taps + t, lanes, block);
    }
  }
}

template <class T>
void depthwise_row(T* out, int64_t out_step, int64_t count, const T* src, const RowTap* taps, const T* weights,
                   int64_t tap_count, int64_t step, T bias, bool relu) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    Vector<T> sum = Vector<T>{} + bias;
    for (int64_t t = 0; t < tap_count; ++t) sum += weights[t] * load_tap(src, taps[t], first, step);
    sum = relu_if<T>(relu, sum);
    if (out_step == 1 && first + kL <= count) {
      store<T>(out + first, sum);
    } else {
      for (int64_t i = 0; i < kL && first + i < count; ++i) out[(first + i) * out_step] = sum[i];
    }
  }
}

template <class T>
void depthwise_reduce_row(T* sums, const T* dy, int64_t dy_step, int64_t count, const T* src, const RowTap* taps,
                          const int32_t* numbers, int64_t tap_count, int64_t step) {
  constexpr int kL = kLanes<T>;
  for (int64_t first = 0; first < count; first += kL) {
    const Vector<T> gradient = load_tap(dy, RowTap{0, 0, count}, first, dy_step);
    for (int64_t t = 0; t < tap_count; ++t) {
      T* sum = sums + numbers[t] * kL;
      store<T>(sum, load(sum) + gradient * load_tap(src, taps[t], first, step));
    }
  }
}

template <class T>
constexpr DepthwiseKernels<T> kDepthwise{depthwise_pixels<T>,
                                         depthwise_reduce_pixels<T>,
                                         {pixels3x3<T, 1>, pixels3x3<T, 2>},
                                         {reduce_pixels3x3<T, 1>, reduce_pixels3x3<T, 2>},
                                         {planes3x3<T, 1>, planes3x3<T, 2>},
                                         {reduce_planes3x3<T, 1>, reduce_planes3x3<T, 2>},
                                         spread_plane3x3<T>,
                                         depthwise_row<T>,
                                         depthwise_reduce_row<T>};

}  // namespace

extern const FloatTables<DepthwiseKernels> depthwise;
const FloatTables<DepthwiseKernels> depthwise{kDepthwise<float>, kDepthwise<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
