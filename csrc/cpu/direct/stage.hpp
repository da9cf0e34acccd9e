// Some rows of x, copied with their padding to a stage in the second-level cache, channels last or, of few planes,
// first:
//
//   stage[depth tap][row % stride][row / stride][column][C]
//   stage[C][depth tap][row % stride][row / stride][column]
//
// in which each of a filter's F = T*R*S*C cells is the same distance from every output. A row of the stage is a whole
// number of strides long, so outputs of the next row follow at the same distance, after some that do not exist: short
// rows are joined to fill tiles.
#pragma once

#include <algorithm>
#include <new>
#include <vector>

#include "blocks.hpp"
#include "cpu/gemm/filters.hpp"
#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/taps.hpp"

namespace fastconv::cpu::direct {

// pixels[count][channels], `pixel` elements apart, from cells of one row. A plane's channels are written a vector at a
// time, up to a vector beyond the last pixel: the last channels first, so that what they write too much is overwritten.
template <class T>
void to_pixels(const T* row, int64_t channel_stride, int64_t column_stride, int64_t channels, int64_t count, T* pixels,
               int64_t pixel) {
  const LayoutKernels<T>& layout = layout_kernels<T>();
  if (channels == 1) channel_stride = 1;  // one plane is a row of pixels as it lies
  if (channel_stride == 1 && column_stride == channels && pixel == channels) {
    std::copy_n(row, count * channels, pixels);
  } else if (channel_stride == 1) {
    for (int64_t i = 0; i < count; ++i) std::copy_n(row + i * column_stride, channels, pixels + i * pixel);
  } else if (column_stride == 1) {
    for (int64_t c = (channels - 1) / layout.lanes * layout.lanes; c >= 0; c -= layout.lanes) {
      layout.planes_to_pixels(pixels + c, pixel, row + c * channel_stride, channel_stride,
                              static_cast<int>(std::min<int64_t>(layout.lanes, channels - c)), count);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < channels; ++c) pixels[i * pixel + c] = row[i * column_stride + c * channel_stride];
    }
  }
}

// A row of the stage, `size` elements: `columns` cells of a row of x from `first` on, zeros in the padding and after
// them.
template <class T>
void stage_row(const Axis& width, const Tensor<const T>& x, const T* row, int64_t channels, int64_t first,
               int64_t columns, T* out, int64_t size, int64_t pixel) {
  const int64_t begin = std::clamp<int64_t>(-first, 0, columns);
  const int64_t end = std::clamp(width.in - first, begin, columns);
  to_pixels(row + (first + begin) * x.stride[4], x.stride[1], x.stride[4], channels, end - begin, out + begin * pixel,
            pixel);
  std::fill_n(out, begin * pixel, T(0));
  std::fill_n(out + end * pixel, size - end * pixel, T(0));
}

// How the outputs are cut into blocks of rows and columns, and where the stage of a block holds what.
template <class T>
struct Stage {
  ConvShape s;
  Blocks row_blocks, column_blocks;
  bool planes;                 // channels first
  int64_t pixel;               // elements from one cell to the next of its row
  int64_t step, steps, row;    // elements from one output to the next, such steps of a row, its elements
  int64_t phases, phase;       // of rows, and the rows of one
  int64_t rows, plane, size;   // of a depth tap, elements from one channel to the next, elements of the stage
  std::vector<int32_t> cells;  // of a filter, (t, r, s, c) or (c, t, r, s)

  // Pixels of so many elements, or planes.
  Stage(const ConvShape& shape, int64_t pixel_size, bool by_planes = false)
      : s(shape),
        row_blocks(s.axis[1].out, 1),
        column_blocks(s.axis[2].out, fitting<T>(s.axis[2], s.axis[0].filter * s.axis[1].window() * pixel_size)),
        planes(by_planes),
        pixel(planes ? 1 : pixel_size),
        step((column_blocks.size > 1 ? s.axis[2].stride : s.axis[2].window()) * pixel),
        steps(ceil_div(s.axis[2].span(column_blocks.size) * pixel, step)),
        row(steps * step) {
    const auto& [depth, height, width] = s.axis;
    const int64_t wanted = std::max(ceil_div(height.out, ceil_div(kEnoughTasks, s.n * depth.out * column_blocks.count)),
                                    ceil_div(tuning::direct::kMinPixels, column_blocks.size));
    const int64_t copies = planes ? s.c : 1;  // of each row
    row_blocks = Blocks(height.out, std::min(fitting<T>(height, copies * depth.filter * row), wanted));
    phases = row_blocks.size > 1 ? height.stride : 1;
    phase = ceil_div(height.span(row_blocks.size), phases);
    rows = phases * phase;
    if (copies * depth.filter * rows > kMaxStage / row) throw std::bad_alloc();
    plane = planes ? depth.filter * rows * row : 1;
    size = copies * depth.filter * rows * row + vector_lanes<T>();  // to_pixels writes beyond its pixels
    for (int64_t i = 0; i < s.taps() * s.c; ++i) {
      const int64_t c = planes ? i / s.taps() : i % s.c;
      const auto [t, r, f] = tap_at(s, planes ? i % s.taps() : i / s.c);
      const int64_t cell = (t * rows + line(r * height.dilation)) * row + f * width.dilation * pixel;
      cells.push_back(static_cast<int32_t>(cell + c * plane));
    }
  }

  // Where the stage holds row h of those that a block reads.
  int64_t line(int64_t h) const { return h % phases * phase + h / phases; }
  // Steps of some rows of outputs: those between two rows are not outputs.
  int64_t joined(int64_t outputs, int64_t in_row) const { return (outputs - 1) * steps + in_row; }
  // Whether rows of that many outputs fill fewer tiles if they are joined.
  bool joins(int64_t outputs, int64_t in_row) const {
    const int64_t mr = gemm_kernels<T>().mr;
    return ceil_div(joined(outputs, in_row), mr) < outputs * ceil_div(in_row, mr);
  }
  int64_t units() const { return s.n * s.axis[0].out * row_blocks.count * column_blocks.count; }
};

// In the order of memory: what a row writes beyond its end is the beginning of the next one.
template <class T>
void fill_stage(const Stage<T>& stage, const Block& block, const Tensor<const T>& x, T* out) {
  const ConvShape& s = stage.s;
  const auto& [depth, height, width] = s.axis;
  const int64_t rows = height.span(block.rows.size()), columns = width.span(block.columns.size());
  const int64_t lines = depth.filter * stage.rows;  // of a plane, or of all channels
  for (int64_t i = 0; i < (stage.planes ? s.c : 1) * lines; ++i, out += stage.row) {
    const int64_t line = i % lines,
                  r = line % stage.rows % stage.phase * stage.phases + line % stage.rows / stage.phase;
    if (r >= rows) continue;
    const int64_t d = depth.input(block.z, line / stage.rows), h = height.input(block.rows.begin, 0) + r;
    if (depth.inside(d) && height.inside(h)) {
      stage_row(width, x, x.at(block.n, i / lines) + d * x.stride[2] + h * x.stride[3], stage.planes ? 1 : s.c,
                width.input(block.columns.begin, 0), columns, out, stage.row, stage.pixel);
    } else {
      std::fill_n(out, stage.row, T(0));
    }
  }
}

}  // namespace fastconv::cpu::direct
