// Maxima and their gradients at awkward sizes, each against a plain loop.
#include <limits>
#include <type_traits>
#include <vector>

#include "cells.hpp"
#include "cpu/runtime/isa.hpp"

namespace fastconv::cpu {
namespace {

using test::Cells;
using test::Integers;
using test::integers;

// A window over rows of `width` cells: taps by rows, with the lanes for which each is real.
struct Window {
  int64_t rows, columns, stride, pad, width;

  int64_t lanes() const { return (width + 2 * pad - columns) / stride + 1; }
  std::vector<RowTap> taps() const {
    std::vector<RowTap> all;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t s = 0; s < columns; ++s) {
        RowTap tap{r * width + s - pad, 0, lanes()};
        while (tap.begin < tap.end && tap.begin * stride + s - pad < 0) ++tap.begin;
        while (tap.end > tap.begin && (tap.end - 1) * stride + s - pad >= width) --tap.end;
        all.push_back(tap);
      }
    }
    return all;
  }
};

template <class Visit>
void for_each_window(Visit visit) {
  for (const int64_t width : {1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 40, 67}) {
    for (const int64_t columns : {1, 2, 3, 5}) {
      for (const int64_t stride : {1, 2, 3}) {
        for (const int64_t pad : {int64_t{0}, columns / 2}) {
          if (width + 2 * pad >= columns) visit(Window{2, columns, stride, pad, width});
        }
      }
    }
  }
}

template <class T>
std::vector<T> values_with_ties(Integers& random, int64_t count) {
  std::vector<T> cells = integers<T>(random, count, std::is_same_v<T, uint8_t> ? 0 : -4, 4);
  if constexpr (std::is_floating_point_v<T>) {
    for (T& cell : cells) cell = random.next<int>(0, 40) == 0 ? test::kNaN<T> : cell;
  } else {
    for (T& cell : cells) cell = random.next<int>(0, 10) == 0 ? std::numeric_limits<T>::lowest() : cell;
  }
  return cells;
}

template <class T>
struct Outputs {
  Cells<T> y;
  Cells<uint8_t> offsets;
  Cells<int64_t> indices;
};

// By the definition: the first of the largest, or the first NaN.
template <class T>
void expect_maxima(const MaxBlock<T>& b, Outputs<T>& expected) {
  for (int64_t plane = 0; plane < b.planes; ++plane) {
    for (int64_t i = 0; i < b.rows; ++i) {
      for (int64_t j = 0; j < b.lanes; ++j) {
        T best = std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
        int64_t code = -1;
        for (int64_t t = 0; t < b.tap_count; ++t) {
          if (j < b.taps[t].begin || j >= b.taps[t].end) continue;
          const T value = b.x[plane * b.x_plane + i * b.x_row + j * b.x_step + b.taps[t].offset];
          if (code < 0 || (best == best && !(value <= best))) {
            best = value;
            code = b.codes[t];
          }
        }
        if (b.rectified && !(best > 0)) code = -1;
        const int64_t where = plane * b.where_plane + i * b.where_row + j;
        expected.y.data()[plane * b.y_plane + i * b.y_row + j] = best;
        if (b.offsets != nullptr) expected.offsets.data()[where] = static_cast<uint8_t>(code);
        if (b.indices != nullptr)
          expected.indices.data()[where] = code < 0 ? -1 : code + b.index + i * b.index_row + j * b.index_step;
      }
    }
  }
}

template <class T>
void check_maxima(const Window& window) {
  Integers random(1);
  const std::vector<RowTap> taps = window.taps();
  std::vector<int32_t> codes;
  for (std::size_t t = 0; t < taps.size(); ++t) codes.push_back(static_cast<int32_t>(7 * t));
  for (int ways = 0; ways < 6; ++ways) {
    const int64_t planes = 2, rows = 3, lanes = window.lanes(), x_plane = (rows + 1) * window.width;
    const auto x = values_with_ties<T>(random, planes * x_plane);
    const int64_t row = lanes + 1, plane = rows * row;
    Outputs<T> out{Cells<T>(planes * plane), Cells<uint8_t>(planes * plane), Cells<int64_t>(planes * plane)};
    Outputs<T> expected = out;
    const MaxBlock<T> block{.planes = planes,
                            .rows = rows,
                            .lanes = lanes,
                            .x = x.data(),
                            .x_plane = x_plane,
                            .x_row = window.width,
                            .x_step = window.stride,
                            .taps = taps.data(),
                            .codes = codes.data(),
                            .tap_count = static_cast<int64_t>(taps.size()),
                            .y = out.y.data(),
                            .y_plane = plane,
                            .y_row = row,
                            .offsets = ways % 3 == 1 ? out.offsets.data() : nullptr,
                            .indices = ways % 3 == 2 ? out.indices.data() : nullptr,
                            .where_plane = plane,
                            .where_row = row,
                            .index = 1000,
                            .index_row = 100,
                            .index_step = 3,
                            .rectified = ways >= 3};
    expect_maxima(block, expected);
    pool_kernels<T>().maxima(block);
    CHECK(out.y == expected.y, "width", window.width, "columns", window.columns, "stride", window.stride, "ways", ways);
    CHECK(out.offsets == expected.offsets, "width", window.width, "columns", window.columns, "stride", window.stride);
    CHECK(out.indices == expected.indices, "width", window.width, "columns", window.columns, "stride", window.stride);
  }
}

}  // namespace

TEST(maxima_of_every_type) {
  for_each_window([](const Window& window) {
    check_maxima<float>(window);
    check_maxima<double>(window);
    check_maxima<int8_t>(window);
    check_maxima<uint8_t>(window);
    check_maxima<int32_t>(window);
    check_maxima<int64_t>(window);
  });
}

TEST(gradients_go_where_the_maxima_came_from) {
  test::for_floats([]<class T>() {
    Integers random(2);
    for (const int64_t width : {1, 2, 7, 8, 9, 16, 17, 33, 50}) {
      for (const int64_t step : {1, 2}) {       // of dy
        for (const int64_t dx_step : {1, 3}) {  // alternating phases are side by side
          for (const bool alternate : {false, true}) {
            if (alternate && dx_step != 1) continue;
            const int64_t rows = 18, second = alternate ? width - width % 2 : 0, dy_row = (width + 2) * step;
            const auto dy = integers<T>(random, rows * dy_row), from = integers<T>(random, rows * dy_row, 0, 3);
            const std::vector<uint8_t> offsets(from.begin(), from.end());
            // Tap 0 reads its own lane, tap 1 the next one; neither is real everywhere.
            const std::vector<SpreadTap> first{{0, 0, 0, width, 0}, {step, step, width / 2, width, 2}};
            const std::vector<SpreadTap> other{{step, step, 1, second, 1}};
            const int64_t dx_row = (width + second) * dx_step + 1;
            Cells<T> dx(rows * dx_row), expected = dx;
            pool_gradient_kernels<T>().spread(
                {.rows = rows,
                 .lanes = {width, second},
                 .dy = dy.data(),
                 .dy_row = dy_row,
                 .dy_step = step,
                 .offsets = offsets.data(),
                 .where_row = dy_row,
                 .where_step = step,
                 .taps = {first.data(), other.data()},
                 .tap_count = {static_cast<int64_t>(first.size()), static_cast<int64_t>(other.size())},
                 .dx = dx.data(),
                 .dx_row = dx_row,
                 .dx_step = dx_step,
                 .alternate = alternate});
            const auto sum = [&](const std::vector<SpreadTap>& taps, int64_t row, int64_t lane) {
              T total = 0;
              for (const SpreadTap& tap : taps) {
                const auto at = [&](int64_t offset) {
                  return static_cast<std::size_t>(row * dy_row + lane * step + offset);
                };
                if (tap.begin <= lane && lane < tap.end && offsets[at(tap.where_offset)] == tap.code)
                  total += dy[at(tap.dy_offset)];
              }
              return total;
            };
            for (int64_t row = 0; row < rows; ++row) {
              T* out = expected.data() + row * dx_row;
              for (int64_t lane = 0; lane < width; ++lane)
                out[lane * (alternate ? 2 : dx_step)] = sum(first, row, lane);
              for (int64_t lane = 0; lane < second; ++lane) out[2 * lane + 1] = sum(other, row, lane);
            }
            CHECK(dx == expected, "width", width, "step", step, "dx_step", dx_step, "alternate", alternate);
          }
        }
      }
    }
  });
}

}  // namespace fastconv::cpu
