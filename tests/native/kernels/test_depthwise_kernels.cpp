// Convolutions of one channel a group: pixels, planes and rows at awkward sizes, each against a plain loop.
#include <vector>

#include "cells.hpp"
#include "cpu/runtime/isa.hpp"

namespace fastconv::cpu {
namespace {

using test::Cells;
using test::Integers;
using test::integers;

// A 3x3 convolution of one plane.
struct Geometry {
  int64_t height, width, stride, pad_top, pad_left, rows, columns;
};

template <class Visit>
void for_each_geometry(Visit visit) {
  for (const int64_t height : {1, 3, 8}) {
    for (const int64_t width : {1, 2, 4, 7, 9, 15, 18, 33, 70, 150}) {
      for (const int64_t stride : {1, 2}) {
        for (const int64_t pad : {0, 1, 2}) {
          const int64_t tall = height + pad + 1 - 3, wide = width + pad + 1 - 3;  // a cell of padding behind
          if (tall < 0 || wide < 0) continue;
          visit(Geometry{height, width, stride, pad, (pad + 1) % 3, tall / stride + 1,
                         (width + (pad + 1) % 3 + 1 - 3 >= 0 ? (width + (pad + 1) % 3 + 1 - 3) / stride + 1 : 1)});
        }
      }
    }
  }
}

// Calls visit(p, q, tap, h, w) for each tap of each output that reads a real cell.
template <class Visit>
void for_each_product(const Geometry& g, Visit visit) {
  for (int64_t p = 0; p < g.rows; ++p) {
    for (int64_t q = 0; q < g.columns; ++q) {
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t h = p * g.stride - g.pad_top + tap / 3, w = q * g.stride - g.pad_left + tap % 3;
        if (h >= 0 && h < g.height && w >= 0 && w < g.width) visit(p, q, tap, h, w);
      }
    }
  }
}

template <class T>
T relu_if(bool relu, T value) {
  return relu && value < 0 ? T(0) : value;
}

// Planes `step` apart, their rows with a gap.
struct PlaneMemory {
  int64_t row, step;
  PlaneMemory(int64_t height, int64_t width) : row(width + 3), step(height * row + 1) {}
};

template <class T>
void check_planes(const Geometry& g, int64_t planes, bool relu) {
  Integers random(static_cast<unsigned>(g.width + planes));
  const PlaneMemory in(g.height, g.width), out(g.rows, g.columns);
  const auto x = integers<T>(random, planes * in.step), dy = integers<T>(random, planes * out.step);
  const auto w = integers<T>(random, planes * 9), biases = integers<T>(random, planes);
  const Plane<const T> x_plane{x.data(), in.row, 1, g.height, g.width};
  const auto at = [](int64_t i) { return static_cast<std::size_t>(i); };
  const DepthwiseKernels<T>& kernels = depthwise_kernels<T>();

  Cells<T> y(planes * out.step), expected = y, sums(random, 9), expected_sums = sums;
  kernels.planes3x3[g.stride - 1](planes, {y.data(), out.row, 1, g.rows, g.columns}, out.step, x_plane, in.step,
                                  g.pad_top, g.pad_left, w.data(), relu ? biases.data() : nullptr, relu);
  kernels.reduce_planes3x3[g.stride - 1](planes, {dy.data(), out.row, 1, g.rows, g.columns}, out.step, x_plane, in.step,
                                         g.pad_top, g.pad_left, sums.data());
  for (int64_t i = 0; i < planes; ++i) {
    T* to = expected.data() + i * out.step;
    for (int64_t p = 0; p < g.rows; ++p) {
      for (int64_t q = 0; q < g.columns; ++q) to[p * out.row + q] = relu ? biases[at(i)] : T(0);
    }
    for_each_product(g, [&](int64_t p, int64_t q, int64_t tap, int64_t h, int64_t column) {
      const T cell = x[at(i * in.step + h * in.row + column)];
      to[p * out.row + q] += w[at(i * 9 + tap)] * cell;
      expected_sums.data()[tap] += dy[at(i * out.step + p * out.row + q)] * cell;
    });
    for (int64_t p = 0; p < g.rows; ++p) {
      for (int64_t q = 0; q < g.columns; ++q) to[p * out.row + q] = relu_if(relu, to[p * out.row + q]);
    }
  }
  CHECK(y == expected, "height", g.height, "width", g.width, "stride", g.stride, "pad", g.pad_top, "planes", planes);
  CHECK(sums == expected_sums, "height", g.height, "width", g.width, "stride", g.stride, "planes", planes);
  if (g.stride != 2) return;

  Cells<T> dx(in.step), expected_dx = dx;
  kernels.spread_plane3x3({dx.data(), in.row, 1, g.height, g.width}, {dy.data(), out.row, 1, g.rows, g.columns},
                          g.pad_top, g.pad_left, w.data());
  for (int64_t h = 0; h < g.height; ++h) {
    for (int64_t column = 0; column < g.width; ++column) expected_dx.data()[h * in.row + column] = T(0);
  }
  for_each_product(g, [&](int64_t p, int64_t q, int64_t tap, int64_t h, int64_t column) {
    expected_dx.data()[h * in.row + column] += w[at(tap)] * dy[at(p * out.row + q)];
  });
  CHECK(dx == expected_dx, "height", g.height, "width", g.width, "pad", g.pad_top);
}

// [vector of channels][tap][lanes], and a vector behind the taps of each: the bias.
template <class T>
struct PixelWeights {
  int64_t lanes = vector_lanes<T>(), taps, behind;
  int64_t at(int64_t channel, int64_t tap) const {
    return (channel / lanes * (taps + behind) + tap) * lanes + channel % lanes;
  }
  int64_t size(int64_t channels) const { return (channels + lanes - 1) / lanes * (taps + behind) * lanes; }
};

template <class T>
void check_pixels(const Geometry& g, int64_t channels, bool relu) {
  Integers random(static_cast<unsigned>(g.width + channels));
  const int64_t pixel = channels + 2, in_row = g.width * pixel + 1, out_row = g.columns * pixel + 3;
  const auto x = integers<T>(random, g.height * in_row), dy = integers<T>(random, g.rows * out_row);
  const PixelWeights<T> layout{.taps = 9, .behind = 1}, sum_layout{.taps = 9, .behind = 0};
  const auto weights = integers<T>(random, layout.size(channels));
  const Plane<const T> x_plane{x.data(), in_row, pixel, g.height, g.width};
  const auto at = [](int64_t i) { return static_cast<std::size_t>(i); };
  Cells<T> y(g.rows * out_row), expected = y, sums(random, sum_layout.size(channels)), expected_sums = sums;
  depthwise_kernels<T>().pixels3x3[g.stride - 1]({y.data(), out_row, pixel, g.rows, g.columns}, x_plane, g.pad_top,
                                                 g.pad_left, channels, weights.data(), relu);
  depthwise_kernels<T>().reduce_pixels3x3[g.stride - 1]({dy.data(), out_row, pixel, g.rows, g.columns}, x_plane,
                                                        g.pad_top, g.pad_left, channels, sums.data());
  for (int64_t c = 0; c < channels; ++c) {
    const auto output = [&](int64_t p, int64_t q) -> T& { return expected.data()[p * out_row + q * pixel + c]; };
    for (int64_t p = 0; p < g.rows; ++p) {
      for (int64_t q = 0; q < g.columns; ++q) output(p, q) = weights[at(layout.at(c, 9))];
    }
    for_each_product(g, [&](int64_t p, int64_t q, int64_t tap, int64_t h, int64_t column) {
      const T cell = x[at(h * in_row + column * pixel + c)];
      output(p, q) += weights[at(layout.at(c, tap))] * cell;
      expected_sums.data()[sum_layout.at(c, tap)] += dy[at(p * out_row + q * pixel + c)] * cell;
    });
    for (int64_t p = 0; p < g.rows; ++p) {
      for (int64_t q = 0; q < g.columns; ++q) output(p, q) = relu_if(relu, output(p, q));
    }
  }
  CHECK(y == expected, "height", g.height, "width", g.width, "stride", g.stride, "channels", channels);
  CHECK(sums == expected_sums, "height", g.height, "width", g.width, "stride", g.stride, "channels", channels);
}

}  // namespace

TEST(planes_of_3x3_filters) {
  test::for_floats([]<class T>() {
    for_each_geometry([](const Geometry& g) {
      for (const int64_t planes : {1, 2, 3}) {
        check_planes<T>(g, planes, false);
        check_planes<T>(g, planes, true);
      }
    });
  });
}

TEST(pixels_of_3x3_filters) {
  test::for_floats([]<class T>() {
    for_each_geometry([](const Geometry& g) {
      for (const int64_t channels : {int64_t{1}, int64_t{vector_lanes<T>()}, int64_t{2 * vector_lanes<T>() + 1}}) {
        if (g.width > 40) continue;  // columns are no lanes here
        check_pixels<T>(g, channels, false);
        check_pixels<T>(g, channels, true);
      }
    });
  });
}

TEST(pixels_that_read_the_same_taps) {
  test::for_floats([]<class T>() {
    Integers random(3);
    for (const int64_t channels : {int64_t{1}, int64_t{vector_lanes<T>()}, int64_t{vector_lanes<T>() + 3}}) {
      for (int64_t tap_count = 0; tap_count <= 20; ++tap_count) {
        for (const int64_t columns : {1, 3, 4, 7, 8, 13}) {
          const bool relu = columns % 2 == 0;
          const int64_t rows = 2, pixel = channels + 1, row = 40 * pixel, taps = 25;
          std::vector<PixelTap> list;  // every tap but the first ones
          for (int64_t t = 0; t < tap_count; ++t) list.push_back({t * pixel, taps - tap_count + t});
          const auto x = integers<T>(random, rows * row), dy = integers<T>(random, rows * row);
          const PixelWeights<T> layout{.taps = taps, .behind = 1}, sum_layout{.taps = taps, .behind = 0};
          const auto weights = integers<T>(random, layout.size(channels));
          Cells<T> y(rows * row), expected = y, sums(random, sum_layout.size(channels)), expected_sums = sums;
          const auto rectangle = [&](T* outputs) {
            return PixelRectangle<T>{rows, columns, x.data(), row, pixel, outputs, row, pixel, list.data(), tap_count};
          };
          depthwise_kernels<T>().pixels(rectangle(y.data()), channels, taps, weights.data(), relu);
          depthwise_kernels<T>().reduce_pixels(rectangle(const_cast<T*>(dy.data())), channels, taps, sums.data());
          for (int64_t i = 0; i < rows * columns * channels; ++i) {
            const int64_t c = i % channels, cell = i / channels / columns * row + i / channels % columns * pixel + c;
            T sum = weights[static_cast<std::size_t>(layout.at(c, taps))];
            for (const PixelTap& tap : list) {
              const T value = x[static_cast<std::size_t>(cell + tap.offset)];
              sum += weights[static_cast<std::size_t>(layout.at(c, tap.number))] * value;
              expected_sums.data()[sum_layout.at(c, tap.number)] += dy[static_cast<std::size_t>(cell)] * value;
            }
            expected.data()[cell] = relu_if(relu, sum);
          }
          CHECK(y == expected, "channels", channels, "taps", tap_count, "columns", columns);
          CHECK(sums == expected_sums, "channels", channels, "taps", tap_count, "columns", columns);
        }
      }
    }
  });
}

TEST(rows_of_any_filter) {
  test::for_floats([]<class T>() {
    Integers random(4);
    const int64_t lanes = vector_lanes<T>();
    for (const int64_t count : {int64_t{1}, lanes - 1, lanes, lanes + 1, 3 * lanes + 2}) {
      for (const int64_t step : {1, 2, 3, 4}) {
        for (const int64_t out_step : {1, 2}) {
          const bool relu = step % 2 == 0;
          const std::vector<RowTap> taps{
              {-step, 1, count}, {0, 0, count}, {5, 0, count - count / 3}, {2, count, count}};
          const std::vector<int32_t> numbers{0, 3, 1, 2};
          const auto src = integers<T>(random, (count - 1) * step + 6), weights = integers<T>(random, 4);
          const auto dy = integers<T>(random, (count - 1) * out_step + 1);
          Cells<T> out(count * out_step), expected = out;
          depthwise_kernels<T>().row(out.data(), out_step, count, src.data(), taps.data(), weights.data(), 4, step,
                                     T(-2), relu);
          Cells<T> sums(random, 4 * lanes), before = sums;
          depthwise_kernels<T>().reduce_row(sums.data(), dy.data(), out_step, count, src.data(), taps.data(),
                                            numbers.data(), 4, step);
          std::vector<T> totals(4);
          for (int64_t i = 0; i < count; ++i) {
            T sum = -2;
            for (std::size_t t = 0; t < taps.size(); ++t) {
              if (i < taps[t].begin || i >= taps[t].end) continue;
              const T value = src[static_cast<std::size_t>(taps[t].offset + i * step)];
              sum += weights[t] * value;
              totals[static_cast<std::size_t>(numbers[t])] += dy[static_cast<std::size_t>(i * out_step)] * value;
            }
            expected.data()[i * out_step] = relu_if(relu, sum);
          }
          CHECK(out == expected, "count", count, "step", step, "out_step", out_step);
          for (int64_t tap = 0; tap < 4; ++tap) {  // each lane has a sum of its own
            T added = 0;
            for (int64_t lane = tap * lanes; lane < (tap + 1) * lanes; ++lane)
              added += sums.data()[lane] - before.data()[lane];
            CHECK_EQUAL(added, totals[static_cast<std::size_t>(tap)], "count", count, "step", step, "tap", tap);
          }
        }
      }
    }
  });
}

}  // namespace fastconv::cpu
