// What the passes of Winograd share: tiles of 4x4 outputs, and a small channels-last stage through which rows of them
// pass on their way in and out. There planes are turned into pixels, and the padding becomes zeros.
#pragma once

#include <algorithm>

#include "isa.hpp"
#include "patches.hpp"

namespace fastconv::cpu::winograd {

inline constexpr int64_t kTile = 4, kSpan = 6, kElements = kSpan * kSpan;
inline constexpr int64_t kStageTiles = 8;  // tiles of a row that are staged together
inline constexpr int64_t kStageColumns = kTile * kStageTiles + 2;

// The tiles of a batch of outputs, counted (n, row, column).
struct TileGrid {
  int64_t rows, columns, count;

  explicit TileGrid(const ConvShape& s)
      : rows(ceil_div(s.axis[1].out, kTile)), columns(ceil_div(s.axis[2].out, kTile)), count(s.n * rows * columns) {}
};

// Tiles [begin, end) of the row of tiles (n, row); the first one is the range's tile `first`.
struct TileRun {
  int64_t n, row, begin, end, first;
};

// Cuts a range of tiles into runs of a row that fit the stage.
template <class Visit>
void for_each_tile_run(const TileGrid& grid, Range tiles, Visit visit) {
  for (int64_t t = tiles.begin; t < tiles.end;) {
    const int64_t column = t % grid.columns, row = t / grid.columns;
    const int64_t count = std::min({grid.columns - column, tiles.end - t, kStageTiles});
    visit(TileRun{row / grid.rows, row % grid.rows, column, column + count, t - tiles.begin});
    t += count;
  }
}

// Cells [first, first + count) of one row of some channels, [count][lanes], those outside the row zero.
template <class T>
void stage_row(const T* row, int64_t channel_stride, int64_t column_stride, int channels, int64_t width, int64_t first,
               int64_t count, T* pixels) {
  const int64_t lanes = winograd_kernels<T>().lanes;
  const int64_t begin = std::clamp<int64_t>(0, first, first + count), end = std::clamp(width, begin, first + count);
  std::fill(pixels, pixels + (begin - first) * lanes, T(0));
  T* out = pixels + (begin - first) * lanes;
  const T* in = row + begin * column_stride;
  if (column_stride == 1) {
    winograd_kernels<T>().planes_to_pixels(out, lanes, in, channel_stride, channels, end - begin);
  } else {
    for (int64_t i = begin; i < end; ++i, out += lanes, in += column_stride) {
      for (int64_t lane = 0; lane < lanes; ++lane) out[lane] = lane < channels ? in[lane * channel_stride] : T(0);
    }
  }
  std::fill(pixels + (end - first) * lanes, pixels + count * lanes, T(0));
}

// stage[rows][kStageColumns][lanes], `columns` of them used: cells of image n, channels c to c + lanes, from (h, w) on,
// those outside the height x width plane zero.
template <class T>
void stage_cells(const Tensor<const T>& x, int64_t n, int64_t c, int channels, int64_t height, int64_t width, int64_t h,
                 int64_t rows, int64_t w, int64_t columns, T* stage) {
  const int64_t lanes = winograd_kernels<T>().lanes;
  for (int64_t r = 0; r < rows; ++r, stage += kStageColumns * lanes) {
    if (h + r < 0 || h + r >= height) {
      std::fill_n(stage, columns * lanes, T(0));
    } else {
      stage_row(x.at(n, c) + (h + r) * x.stride[3], x.stride[1], x.stride[4], channels, width, w, columns, stage);
    }
  }
}

// B^T d B of the tiles of a run, a vector of channels at a time: place(c, tile of the run) is where its 36 elements go,
// `stride` apart.
template <class T, class Place>
void transform_inputs(const ConvShape& s, const Tensor<const T>& x, const TileRun& run, T* stage, int64_t stride,
                      Place place) {
  const WinogradKernels<T>& transform = winograd_kernels<T>();
  const Axis &height = s.axis[1], &width = s.axis[2];
  const int64_t tiles = run.end - run.begin, lanes = transform.lanes;
  for (int64_t c = 0; c < s.c; c += lanes) {
    stage_cells(x, run.n, c, static_cast<int>(std::min(lanes, s.c - c)), height.in, width.in,
                height.input(run.row * kTile, 0), kSpan, width.input(run.begin * kTile, 0), kTile * tiles + 2, stage);
    for (int64_t t = 0; t < tiles; ++t)
      transform.input(place(c, t), stride, stage + t * kTile * lanes, kStageColumns * lanes);
  }
}

}  // namespace fastconv::cpu::winograd
