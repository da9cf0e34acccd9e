// What the passes of Winograd share: tiles of outputs, and a small channels-last stage through which rows of them
// pass on their way in and out. There planes are turned into pixels, and the padding becomes zeros. Tiles that have
// neither are read and written where they lie.
#pragma once

#include <algorithm>
#include <array>

#include "cpu/runtime/isa.hpp"
#include "cpu/walk/call.hpp"
#include "cpu/walk/extents.hpp"

namespace fastconv::cpu::winograd {

inline constexpr int64_t kStageRows = 6, kStageColumns = 34;  // 8 tiles that are 4 apart, or 15 or 16 that are 2 apart

// A filtering F(tile x tile, taps x taps), and why a plane takes it.
struct Filtering {
  int64_t taps, tile;  // along an axis
  const char *name, *reason;
};
inline constexpr std::array<Filtering, 3> kFilterings{{
    {3, 4, "F(4x4, 3x3)", "3x3 taps: tiles of 4x4 multiply least"},
    {3, 2, "F(2x2, 3x3)", "3x3 taps, planes so small that tiles of 4x4 would be mostly empty"},
    {5, 2, "F(2x2, 5x5)", "5x5 taps"},
}};

// Its place in kFilterings.
inline int choose_filtering(const ConvShape& s) {
  if (s.axis[1].filter == 5) return 2;
  const auto multiplications = [&](int64_t tile) {
    return ceil_div(s.axis[1].out, tile) * ceil_div(s.axis[2].out, tile) * (tile + 2) * (tile + 2);
  };
  if (multiplications(2) < multiplications(4)) return 1;
  return 0;
}

// The tiles of a batch of outputs, counted (n, row, column).
struct TileGrid {
  int filtering;
  int64_t taps, tile;  // along an axis
  int64_t rows, columns, count;

  explicit TileGrid(const ConvShape& s)
      : filtering(choose_filtering(s)),
        taps(kFilterings[static_cast<std::size_t>(filtering)].taps),
        tile(kFilterings[static_cast<std::size_t>(filtering)].tile),
        rows(ceil_div(s.axis[1].out, tile)),
        columns(ceil_div(s.axis[2].out, tile)),
        count(s.n * rows * columns) {}
  int64_t span() const { return tile + taps - 1; }  // of the inputs of a tile
  int64_t elements() const { return span() * span(); }
  int64_t staged() const { return (kStageColumns - span()) / tile + 1; }  // tiles of a row that are staged together
};

template <class T>
const WinogradTransforms<T>& transforms(const TileGrid& grid) {
  const WinogradKernels<T>& kernels = winograd_kernels<T>();
  return grid.taps == 5 ? kernels.f2x2_5x5 : grid.tile == 2 ? kernels.f2x2_3x3 : kernels.f4x4_3x3;
}

// Tiles [begin, end) of the row of tiles (n, row); the first one is the range's tile `first`.
struct TileRun {
  int64_t n, row, begin, end, first;
};

// Cuts a range of tiles into runs of a row that fit the stage.
template <class Visit>
void for_each_tile_run(const TileGrid& grid, Range tiles, Visit visit) {
  for (int64_t t = tiles.begin; t < tiles.end;) {
    const int64_t column = t % grid.columns, row = t / grid.columns;
    const int64_t count = std::min({grid.columns - column, tiles.end - t, grid.staged()});
    visit(TileRun{row / grid.rows, row % grid.rows, column, column + count, t - tiles.begin});
    t += count;
  }
}

// Cells [first, first + count) of one row of some channels, [count][lanes], those outside the row zero.
template <class T>
void stage_row(const T* row, int64_t channel_stride, int64_t column_stride, int channels, int64_t width, int64_t first,
               int64_t count, T* pixels) {
  const int64_t lanes = vector_lanes<T>();
  const int64_t begin = std::clamp<int64_t>(0, first, first + count), end = std::clamp(width, begin, first + count);
  std::fill(pixels, pixels + (begin - first) * lanes, T(0));
  T* out = pixels + (begin - first) * lanes;
  const T* in = row + begin * column_stride;
  if (column_stride == 1) {
    layout_kernels<T>().planes_to_pixels(out, lanes, in, channel_stride, channels, end - begin);
  } else {
    layout_kernels<T>().copy_padded(out, lanes, lanes, in, column_stride, channel_stride, 0, channels, end - begin, 0);
  }
  std::fill(pixels + (end - first) * lanes, pixels + count * lanes, T(0));
}

// stage[rows][kStageColumns][lanes], `columns` of them used: cells of image n, channels c to c + lanes, from (h, w) on,
// those outside the height x width plane zero.
template <class T>
void stage_cells(const Tensor<const T>& x, int64_t n, int64_t c, int channels, int64_t height, int64_t width, int64_t h,
                 int64_t rows, int64_t w, int64_t columns, T* stage) {
  const int64_t lanes = vector_lanes<T>();
  for (int64_t r = 0; r < rows; ++r, stage += kStageColumns * lanes) {
    if (h + r < 0 || h + r >= height) {
      std::fill_n(stage, columns * lanes, T(0));
    } else {
      stage_row(x.at(n, c) + (h + r) * x.stride[3], x.stride[1], x.stride[4], channels, width, w, columns, stage);
    }
  }
}

// Calls visit(tile, cells, row stride, column stride) for `tiles` tiles in a row, `step` apart, each `span` x span
// cells of image n and channels c to c + lanes; the first one begins at (h, w). Cells outside the height x width plane
// are zero.
template <class T, class Visit>
void for_each_tile(const Tensor<const T>& x, int64_t n, int64_t c, int channels, const Extents& plane, int64_t span,
                   int64_t step, int64_t h, int64_t w, int64_t tiles, T* stage, Visit visit) {
  const int64_t lanes = vector_lanes<T>(), height = plane[1], width = plane[2];
  const auto staged = [&](Range part) {
    if (part.size() == 0) return;
    stage_cells(x, n, c, channels, height, width, h, span, w + step * part.begin, step * (part.size() - 1) + span,
                stage);
    for (int64_t t = part.begin; t < part.end; ++t)
      visit(t, stage + (t - part.begin) * step * lanes, kStageColumns * lanes, lanes);
  };
  Range inside{0, 0};  // tiles that can be read in place
  if (x.stride[1] == 1 && channels == lanes && h >= 0 && h + span <= height && w + span <= width) {
    inside.begin = std::min(tiles, w < 0 ? ceil_div(-w, step) : 0);
    inside.end = std::clamp((width - span - w) / step + 1, inside.begin, tiles);
  }
  staged({0, inside.begin});
  for (int64_t t = inside.begin; t < inside.end; ++t) {
    visit(t, x.at(n, c) + h * x.stride[3] + (w + step * t) * x.stride[4], x.stride[3], x.stride[4]);
  }
  staged({inside.end, tiles});
}

// B^T d B of the tiles of a run, a vector of channels at a time: place(c, tile of the run) is where its elements go,
// `stride` apart.
template <class T, class Place>
void transform_inputs(const ConvShape& s, const TileGrid& grid, const Tensor<const T>& x, const TileRun& run, T* stage,
                      int64_t stride, Place place) {
  const auto input = transforms<T>(grid).input;
  const Axis &height = s.axis[1], &width = s.axis[2];
  const int64_t lanes = vector_lanes<T>();
  for (int64_t c = 0; c < s.c; c += lanes) {
    for_each_tile(x, run.n, c, static_cast<int>(std::min(lanes, s.c - c)), in_extents(s), grid.span(), grid.tile,
                  height.input(run.row * grid.tile, 0), width.input(run.begin * grid.tile, 0), run.end - run.begin,
                  stage, [&](int64_t t, const T* cells, int64_t row_stride, int64_t column_stride) {
                    input(place(c, t), stride, cells, row_stride, column_stride);
                  });
  }
}

// A dy A^T of the tiles of a run, a vector of filters at a time: place(k, tile of the run) is where its elements go.
template <class T, class Place>
void transform_gradients(const ConvShape& s, const TileGrid& grid, const Tensor<const T>& dy, const TileRun& run,
                         T* stage, int64_t stride, Place place) {
  const auto gradient = transforms<T>(grid).gradient;
  const int64_t lanes = vector_lanes<T>(), tile = grid.tile;
  for (int64_t k = 0; k < s.k; k += lanes) {
    for_each_tile(dy, run.n, k, static_cast<int>(std::min(lanes, s.k - k)), out_extents(s), tile, tile, run.row * tile,
                  run.begin * tile, run.end - run.begin, stage,
                  [&](int64_t t, const T* cells, int64_t row_stride, int64_t column_stride) {
                    gradient(place(k, t), stride, cells, row_stride, column_stride);
                  });
  }
}

// A row of pixels of a stage.
template <class T>
void write_row(const T* pixels, int channels, int64_t count, T* row, int64_t channel_stride, int64_t column_stride) {
  const int64_t lanes = vector_lanes<T>();
  if (column_stride == 1)
    return layout_kernels<T>().pixels_to_planes(row, channel_stride, pixels, lanes, channels, count);
  if (channel_stride == 1)
    return layout_kernels<T>().copy_rows(row, column_stride, 1, pixels, lanes, 1, count, channels);
  for (int64_t i = 0; i < count; ++i, pixels += lanes, row += column_stride) {
    for (int lane = 0; lane < channels; ++lane) row[lane * channel_stride] = pixels[lane];
  }
}

// Writes the stage's rows of outputs of some filters.
template <class T>
void unstage(const ConvShape& s, int64_t tile, const TileRun& run, int64_t k, const T* stage, const Tensor<T>& y) {
  const Axis &height = s.axis[1], &width = s.axis[2];
  const int64_t lanes = vector_lanes<T>();
  const auto channels = static_cast<int>(std::min(lanes, s.k - k));
  const int64_t count = std::min(width.out, run.end * tile) - run.begin * tile;
  for (int64_t r = 0; r < tile && run.row * tile + r < height.out; ++r) {
    const T* pixels = stage + r * kStageColumns * lanes;
    T* row = y.at(run.n, k) + (run.row * tile + r) * y.stride[3] + run.begin * tile * y.stride[4];
    write_row(pixels, channels, count, row, y.stride[1], y.stride[4]);
  }
}

// The products m[element][tile][width] of some tiles and filters, elements `stride` apart.
template <class T>
struct Products {
  const T* m;
  int64_t stride, width;
};

// y of some tiles and filters, from their products: written in place where a vector of channels can be, through the
// stage otherwise. bias[K] is padded to whole vectors.
template <class T>
void transform_outputs(const Correlation<T>& call, const TileGrid& grid, Range tiles, Range filters,
                       const Products<T>& products, const T* bias, T* stage) {
  const auto output = transforms<T>(grid).output;
  const ConvShape& s = call.shape;
  const Tensor<T>& y = call.y;
  const int64_t lanes = vector_lanes<T>(), tile = grid.tile;
  const bool relu = call.finish.relu;
  for_each_tile_run(grid, tiles, [&](const TileRun& run) {
    const bool whole_rows = (run.row + 1) * tile <= s.axis[1].out;
    for (int64_t k = filters.begin; k < std::min(s.k, filters.end); k += lanes) {
      const T* m = products.m + run.first * products.width + (k - filters.begin);
      const bool in_place = y.stride[1] == 1 && k + lanes <= s.k && whole_rows;
      TileRun rest = run;
      if (in_place) rest.begin = std::clamp(s.axis[2].out / tile, run.begin, run.end);
      for (int64_t t = run.begin; t < rest.begin; ++t, m += products.width) {
        output(y.at(run.n, k) + run.row * tile * y.stride[3] + t * tile * y.stride[4], y.stride[3], y.stride[4], m,
               products.stride, bias + k, relu);
      }
      if (rest.begin == rest.end) continue;
      for (int64_t t = 0; t < rest.end - rest.begin; ++t) {
        output(stage + t * tile * lanes, kStageColumns * lanes, lanes, m + t * products.width, products.stride,
               bias + k, relu);
      }
      unstage(s, tile, rest, k, stage, y);
    }
  });
}

// bias[count] of a call, zeros where it has none.
template <class T>
void copy_bias(const Correlation<T>& call, int64_t count, T* bias) {
  for (int64_t k = 0; k < count; ++k) bias[k] = k < call.shape.k ? call.finish.bias_of(k) : T(0);
}

}  // namespace fastconv::cpu::winograd
