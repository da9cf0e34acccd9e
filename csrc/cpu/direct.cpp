// Some rows of x are copied, channels last and with their padding, to a stage in the second-level cache,
//
//   stage[depth tap][row % stride][row / stride][column][C]
//
// in which each of a filter's F = T*R*S*C cells is the same distance from every output. The micro-kernel of the matrix
// product reads the patches of neighbouring outputs there, `stride * C` apart, against packed filters:
//
//   y[outputs, K] = patches[outputs, F] w^T[F, K]
//
// A row of the stage is a whole number of strides long, so outputs of the next row follow at the same distance, after
// some that do not exist: short rows are joined to fill the tile. The weight gradient is a product over all outputs of
// a block for each row of filter cells, with zeros for those that do not exist: there the patches' transpose is as good
// as packed.
//
//   dw^T[S*C of a filter row, K] += patches^T[S*C, outputs] dy[outputs, K]
//
// Planes are turned into pixels, and back, by register transposition on the way: their copies cost a few per cent of
// what packing their patches did. Where it is more than that, direct_planes.cpp has another way.
#include "direct.hpp"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "direct_blocks.hpp"
#include "gemm.hpp"
#include "groups.hpp"
#include "operands.hpp"
#include "patches.hpp"
#include "thread_pool.hpp"
#include "workspace.hpp"

namespace fastconv::cpu::direct {
namespace {

constexpr int64_t kMaxStage = int64_t{1} << 31;  // elements that 32-bit offsets reach
constexpr int64_t kSumBytes = 1 << 20;           // of gradients that stay near while a task's outputs pass
constexpr int64_t kSumCost = 4;                  // outputs that take as long as a tile's sums in and out
constexpr double kMaxWindow = 1 << 20;           // cells that a dilated filter may span

// pixels[count][channels], `pixel` elements apart, from cells of one row. A plane's channels are written a vector at a
// time, up to a vector beyond the last pixel: the last channels first, so that what they write too much is overwritten.
template <class T>
void to_pixels(const T* row, int64_t channel_stride, int64_t column_stride, int64_t channels, int64_t count, T* pixels,
               int64_t pixel) {
  const WinogradKernels<T>& kernel = winograd_kernels<T>();
  if (channels == 1) channel_stride = 1;  // one plane is a row of pixels as it lies
  if (channel_stride == 1 && column_stride == channels && pixel == channels) {
    std::copy_n(row, count * channels, pixels);
  } else if (channel_stride == 1) {
    for (int64_t i = 0; i < count; ++i) std::copy_n(row + i * column_stride, channels, pixels + i * pixel);
  } else if (column_stride == 1) {
    for (int64_t c = (channels - 1) / kernel.lanes * kernel.lanes; c >= 0; c -= kernel.lanes) {
      kernel.planes_to_pixels(pixels + c, pixel, row + c * channel_stride, channel_stride,
                              static_cast<int>(std::min<int64_t>(kernel.lanes, channels - c)), count);
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
void stage_row(const ConvShape& s, const Tensor<const T>& x, const T* row, int64_t first, int64_t columns, T* out,
               int64_t size, int64_t pixel) {
  const int64_t begin = std::clamp<int64_t>(-first, 0, columns);
  const int64_t end = std::clamp(s.axis[2].in - first, begin, columns);
  to_pixels(row + (first + begin) * x.stride[4], x.stride[1], x.stride[4], s.c, end - begin, out + begin * pixel,
            pixel);
  std::fill_n(out, begin * pixel, T(0));
  std::fill_n(out + end * pixel, size - end * pixel, T(0));
}

// How the outputs are cut into blocks of rows and columns, and where the stage of a block holds what.
template <class T>
struct Stage {
  const ConvShape& s;
  Blocks row_blocks, column_blocks;
  int64_t pixel;               // elements from one cell to the next of its row
  int64_t step, steps, row;    // elements from one output to the next, such steps of a row, its elements
  int64_t phases, phase;       // of rows, and the rows of one
  int64_t rows, size;          // of a depth tap, elements of the stage
  std::vector<int32_t> cells;  // of a filter, (t, r, s, c)

  Stage(const ConvShape& shape, int64_t pixel_size)
      : s(shape),
        row_blocks(s.axis[1].out, 1),
        column_blocks(s.axis[2].out, fitting<T>(s.axis[2], s.axis[0].filter * s.axis[1].window() * pixel_size)),
        pixel(pixel_size),
        step((column_blocks.size > 1 ? s.axis[2].stride : s.axis[2].window()) * pixel),
        steps(ceil_div(span(s.axis[2], column_blocks.size) * pixel, step)),
        row(steps * step) {
    const auto& [depth, height, width] = s.axis;
    const int64_t wanted = std::max(ceil_div(height.out, ceil_div(kMinTasks, s.n * depth.out * column_blocks.count)),
                                    ceil_div(kMinPixels, column_blocks.size));
    row_blocks = Blocks(height.out, std::min(fitting<T>(height, depth.filter * row), wanted));
    phases = row_blocks.size > 1 ? height.stride : 1;
    phase = ceil_div(span(height, row_blocks.size), phases);
    rows = phases * phase;
    if (depth.filter * rows > kMaxStage / row) throw std::bad_alloc();
    size = depth.filter * rows * row + winograd_kernels<T>().lanes;  // to_pixels writes beyond its pixels
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      const auto [t, r, f] = tap_at(s, tap);
      const int64_t cell = (t * rows + line(r * height.dilation)) * row + f * width.dilation * pixel;
      for (int64_t c = 0; c < s.c; ++c) cells.push_back(static_cast<int32_t>(cell + c));
    }
  }

  std::size_t bytes() const { return array_bytes(size, 1, sizeof(T)); }
  // Where the stage holds row h of those that a block reads.
  int64_t line(int64_t h) const { return h % phases * phase + h / phases; }
  // Steps of some rows of outputs: those between two rows are not outputs.
  int64_t joined(int64_t outputs, int64_t in_row) const { return (outputs - 1) * steps + in_row; }
  // Whether rows of that many outputs fill fewer tiles if they are joined.
  bool joins(int64_t outputs, int64_t in_row) const {
    const int64_t mr = gemm_kernels<T>().mr;
    return ceil_div(joined(outputs, in_row), mr) < outputs * ceil_div(in_row, mr);
  }
  // Of the tiles of a block, for one panel of filters.
  std::size_t output_bytes() const {
    const int64_t mr = gemm_kernels<T>().mr, nr = gemm_kernels<T>().nr;
    return array_bytes(row_blocks.size * ceil_div(column_blocks.size, mr), mr * nr, sizeof(T));
  }
  int64_t units() const { return s.n * s.axis[0].out * row_blocks.count * column_blocks.count; }
};

// Elements of a pixel of some channels: with a cache line more where outputs' patches would lie so far apart that few
// sets of a first-level cache had to hold them.
template <class T>
int64_t unaliased(int64_t channels, int64_t stride) {
  const int64_t line = kCacheLine / static_cast<int64_t>(sizeof(T));
  return stride * channels % (16 * line) == 0 ? channels + line : channels;
}

// In the order of memory: what a row writes beyond its end is the beginning of the next one.
template <class T>
void fill_stage(const Stage<T>& stage, const Block& block, const Tensor<const T>& x, T* out) {
  const ConvShape& s = stage.s;
  const auto& [depth, height, width] = s.axis;
  const int64_t rows = span(height, block.rows.size()), columns = span(width, block.columns.size());
  for (int64_t line = 0; line < depth.filter * stage.rows; ++line, out += stage.row) {
    const int64_t r = line % stage.rows % stage.phase * stage.phases + line % stage.rows / stage.phase;
    if (r >= rows) continue;
    const int64_t d = depth.input(block.z, line / stage.rows), h = height.input(block.rows.begin, 0) + r;
    if (depth.inside(d) && height.inside(h)) {
      stage_row(s, x, x.at(block.n, 0) + d * x.stride[2] + h * x.stride[3], width.input(block.columns.begin, 0),
                columns, out, stage.row, stage.pixel);
    } else {
      std::fill_n(out, stage.row, T(0));
    }
  }
}

// The outputs of some neighbouring pixels, [pixels][nr], to y.
template <class T>
void write_tile(const T* tile, int64_t pixels, int64_t filters, T* to, const Tensor<T>& y) {
  const int64_t mr = gemm_kernels<T>().mr, nr = gemm_kernels<T>().nr, lanes = winograd_kernels<T>().lanes;
  const bool dense = y.stride[4] == 1;
  if (!dense && y.stride[4] != 2) {
    for (int64_t i = 0; i < pixels; ++i) {
      for (int64_t k = 0; k < filters; ++k) to[i * y.stride[4] + k * y.stride[1]] = tile[i * nr + k];
    }
    return;
  }
  T planes[kMaxTile];  // of every second column
  for (int64_t k = 0; k < filters; k += lanes, to += lanes * y.stride[1]) {
    const int64_t some = std::min(lanes, filters - k);
    winograd_kernels<T>().pixels_to_planes(dense ? to : planes, dense ? y.stride[1] : mr, tile + k, nr,
                                           static_cast<int>(some), pixels);
    if (!dense) gemm_kernels<T>().copy_rows(to, y.stride[1], 2, planes, mr, 1, some, pixels);
  }
}

// The outputs of a block for the filters of one panel. Long filters are cut, so that a part of the panel stays in the
// cache while all outputs pass; `sums` holds theirs so far.
template <class T>
void multiply_panel(const Stage<T>& stage, const Block& block, const T* staged, int64_t k, const T* panel,
                    const T* bias, bool relu, T* sums, const Tensor<T>& y) {
  const ConvShape& s = stage.s;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t columns = block.columns.size();
  const bool joined = stage.joins(block.rows.size(), columns);
  const int64_t lines = joined ? 1 : block.rows.size();
  // Even: one of one or two pixels takes as long as one of four.
  const Blocks tiles(joined ? stage.joined(block.rows.size(), columns) : columns, gemm.mr);
  const Blocks parts(static_cast<int64_t>(stage.cells.size()), gemm.k_block);
  for (int64_t part = 0; part < parts.count; ++part) {
    const Range cells = parts[part];
    const bool last = part + 1 == parts.count, in_place = last && !joined && y.stride[1] == 1 && k + gemm.nr <= s.k;
    const Epilogue<T> epilogue{nullptr, last ? bias : nullptr, last && relu};
    T* sum = sums;
    for (int64_t i = 0; i < lines * tiles.count; ++i, sum += gemm.mr * gemm.nr) {
      const Range q = tiles[i % tiles.count];
      const int64_t first = i / tiles.count * stage.steps + q.begin;
      const T* patches = staged + first * stage.step;
      T* row = y.at(block.n, k) + block.z * y.stride[2] + block.columns.begin * y.stride[4];
      const auto output = [&](int64_t at) {
        return row + (block.rows.begin + at / stage.steps) * y.stride[3] + at % stage.steps * y.stride[4];
      };
      alignas(kCacheLine) T tile[kMaxTile];
      T* out = in_place ? output(first) : last ? tile : sum;
      gemm.tile_scattered(cells.size(), patches, stage.step, stage.cells.data() + cells.begin,
                          panel + cells.begin * gemm.nr, part == 0 ? nullptr : sum, out,
                          in_place ? y.stride[4] : gemm.nr, static_cast<int>(q.size()), epilogue, {patches, 0});
      // A row at a time, without what lies between two.
      for (int64_t at = first, end = first + q.size(); last && !in_place && at < end;) {
        const int64_t next = at / stage.steps * stage.steps + stage.steps, real = next - stage.steps + columns;
        if (at < real) {
          write_tile(tile + (at - first) * gemm.nr, std::min(end, real) - at, std::min<int64_t>(gemm.nr, s.k - k),
                     output(at), y);
        }
        at = next;
      }
    }
  }
}

// One group.
template <class T>
void correlate(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w, const Vector<const T>& bias,
               bool relu, const Tensor<T>& y, std::size_t workspace_limit) {
  if (planes_serve(s, x, y)) return correlate_planes(s, x, w, bias, relu, y, workspace_limit);
  const Stage<T> stage(s, unaliased<T>(s.c, s.axis[2].stride));
  const int nr = gemm_kernels<T>().nr;
  const int64_t cells = s.c * s.taps(), panels = ceil_div(s.k, static_cast<int64_t>(nr));
  const std::size_t panel_bytes = array_bytes(panels * nr, cells, sizeof(T));
  const std::size_t bias_bytes = array_bytes(panels, nr, sizeof(T));
  const Filters<T> filters(s, w, true);
  const std::size_t shared = panel_bytes + bias_bytes;
  const std::size_t sum_bytes = cells > gemm_kernels<T>().k_block ? stage.output_bytes() : 0;
  const std::size_t own = std::max(sum_bytes + stage.bytes(), filters.scratch_bytes(nr));
  const int threads = threads_within(workspace_limit, shared, own, threads_for(s), "direct");
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  T *packed = memory.at<T>(0), *biases = memory.at<T>(panel_bytes);
  const auto scratch = [&](int slot) { return shared + static_cast<std::size_t>(slot) * own; };
  for (int64_t k = 0; k < panels * nr; ++k) biases[k] = bias.data != nullptr && k < s.k ? bias[k] : T(0);
  parallel_for(panels, threads, [&](int64_t panel, int slot) {
    filters.pack(packed + panel * nr * cells, nr, {panel * nr, std::min(s.k, (panel + 1) * nr)}, {0, cells},
                 memory.at<std::byte>(scratch(slot)));
  });
  parallel_for(stage.units(), threads, [&](int64_t unit, int slot) {
    const Block block(stage, unit);
    T *sums = memory.at<T>(scratch(slot)), *staged = memory.at<T>(scratch(slot) + sum_bytes);
    fill_stage(stage, block, x, staged);
    for (int64_t k = 0; k < s.k; k += nr)
      multiply_panel(stage, block, staged, k, packed + k * cells, biases + k, relu, sums, y);
  });
}

// [count][nr] of dy's pixels of a row, for some filters.
template <class T>
void copy_gradients(const T* row, const Tensor<const T>& dy, int64_t filters, int64_t count, T* copy) {
  const int64_t nr = gemm_kernels<T>().nr, lanes = winograd_kernels<T>().lanes;
  if (dy.stride[4] == 1) {
    for (int64_t k = 0; k < filters; k += lanes) {
      winograd_kernels<T>().planes_to_pixels(copy + k, nr, row + k * dy.stride[1], dy.stride[1],
                                             static_cast<int>(std::min(lanes, filters - k)), count);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (dy.stride[1] == 1) {
      std::copy_n(row + i * dy.stride[4], filters, copy + i * nr);
      continue;
    }
    for (int64_t k = 0; k < filters; ++k) copy[i * nr + k] = row[i * dy.stride[4] + k * dy.stride[1]];
  }
}

// sums[tap][C][nr] += the products of a block's patches and gradients, for the filters of a panel; `copy` holds the
// gradients [joined outputs][nr].
template <class T>
void reduce_panel(const Stage<T>& stage, const Block& block, const T* staged, int64_t k, const Tensor<const T>& dy,
                  T* copy, T* sums) {
  const ConvShape& s = stage.s;
  const auto& [depth, height, width] = s.axis;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t mr = gemm.mr, nr = gemm.nr, rows = block.rows.size(), columns = block.columns.size();
  const bool joined = stage.steps <= columns + kSumCost;
  const int64_t lines = joined ? 1 : rows, outputs = joined ? stage.joined(rows, columns) : columns;
  for (int64_t p = 0; p < rows; ++p) {
    const T* gradient = dy.at(block.n, k) + block.z * dy.stride[2] + (block.rows.begin + p) * dy.stride[3] +
                        block.columns.begin * dy.stride[4];
    copy_gradients(gradient, dy, std::min(nr, s.k - k), columns, copy + p * stage.steps * nr);
    if (p + 1 < rows) std::fill_n(copy + (p * stage.steps + columns) * nr, (stage.steps - columns) * nr, T(0));
  }
  const auto tile = s.k - k <= gemm.lanes ? gemm.tile_vector : gemm.tile;  // half of the panel is empty
  const bool one_run = width.dilation == 1;                                // the cells of a filter row
  const int64_t runs = one_run ? 1 : width.filter, length = one_run ? width.filter * s.c : s.c;
  for (int64_t p = 0; p < lines; ++p) {
    const T* gradients = copy + p * stage.steps * nr;
    T* sum = sums;
    for (int64_t row = 0; row < depth.filter * height.filter; ++row) {
      const int64_t line = row / height.filter * stage.rows + stage.line(row % height.filter * height.dilation) + p;
      for (int64_t run = 0; run < runs; ++run) {
        const T* cells = staged + line * stage.row + run * width.dilation * s.c;
        for (int64_t cell = 0; cell < length; cell += mr) {
          const auto some = static_cast<int>(std::min(mr, length - cell));
          tile(outputs, cells + cell, stage.step, gradients, nr, sum, sum, nr, some, {}, {cells, 0});
          sum += some * nr;
        }
      }
    }
  }
}

// dw[nr filters from k on] from sums[tap][C][nr].
template <class T>
void write_panel(const ConvShape& s, const T* sums, int64_t k, const Tensor<T>& dw) {
  const int64_t nr = gemm_kernels<T>().nr, lanes = winograd_kernels<T>().lanes, filters = std::min(nr, s.k - k);
  const bool joined = spatial_stride(dw, filter_extents(s)) == 1;
  for (int64_t c = 0; c < s.c; ++c) {
    const T* sum = sums + c * nr;
    for (int64_t first = 0; joined && first < filters; first += lanes) {
      winograd_kernels<T>().pixels_to_planes(dw.at(k + first, c), dw.stride[0], sum + first, s.c * nr,
                                             static_cast<int>(std::min(lanes, filters - first)), s.taps());
    }
    for (int64_t i = 0; !joined && i < filters; ++i) {
      for_each_cell(dw, k + i, c, filter_extents(s), {0, s.taps()},
                    [&](T& gradient, int64_t tap) { gradient = sum[tap * s.c * nr + i]; });
    }
  }
}

// One group.
template <class T>
void reduce(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
            std::size_t workspace_limit) {
  if (planes_serve_reduction(s, x, dy)) return reduce_planes(s, dy, x, dw, workspace_limit);
  const Stage<T> stage(s, s.c);
  const int64_t nr = gemm_kernels<T>().nr, panels = ceil_div(s.k, nr), cells = s.c * s.taps();
  const std::size_t sum_bytes = array_bytes(cells, nr, sizeof(T));
  // A task's panels share its stages. Parts of the outputs have sums of their own, where panels are too few to share
  // out.
  const Blocks groups(panels, std::max<int64_t>(1, kSumBytes / static_cast<int64_t>(sum_bytes)));
  const Blocks parts(stage.units(), ceil_div(stage.units(), ceil_div(kMinTasks, groups.count)));
  const std::size_t shared = static_cast<std::size_t>(panels * parts.count) * sum_bytes;
  const std::size_t copy_bytes =
      array_bytes(stage.joined(stage.row_blocks.size, stage.column_blocks.size), nr, sizeof(T));
  const std::size_t own = stage.bytes() + copy_bytes;
  const int threads = threads_within(workspace_limit, shared, own, threads_for(s), "direct");
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  const auto sums = [&](int64_t panel, int64_t part) {
    return memory.at<T>(static_cast<std::size_t>(panel * parts.count + part) * sum_bytes);
  };
  parallel_for(groups.count * parts.count, threads, [&](int64_t task, int slot) {
    const std::size_t at = shared + static_cast<std::size_t>(slot) * own;
    T *staged = memory.at<T>(at), *copy = memory.at<T>(at + stage.bytes());
    const int64_t part = task % parts.count;
    const Range group = groups[task / parts.count], units = parts[part];
    for (int64_t panel = group.begin; panel < group.end; ++panel) std::fill_n(sums(panel, part), cells * nr, T(0));
    std::fill_n(copy, copy_bytes / sizeof(T), T(0));
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      const Block block(stage, unit);
      fill_stage(stage, block, x, staged);
      for (int64_t panel = group.begin; panel < group.end; ++panel)
        reduce_panel(stage, block, staged, panel * nr, dy, copy, sums(panel, part));
    }
  });
  parallel_for(panels, threads, [&](int64_t panel, int) {
    T* sum = sums(panel, 0);
    for (int64_t part = 1; part < parts.count; ++part) {
      const T* other = sums(panel, part);
      for (int64_t i = 0; i < cells * nr; ++i) sum[i] += other[i];
    }
    write_panel(s, sum, panel * nr, dw);
  });
}

}  // namespace

bool serves(const ConvShape& s) {
  const auto& [depth, height, width] = s.axis;
  double cells = static_cast<double>(depth.filter) * static_cast<double>(s.group_c());
  cells *= static_cast<double>(height.window()) * static_cast<double>(width.window());
  return cells <= kMaxWindow;
}

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  for_each_group(s, x, w, y, [&](const ConvShape& group, const auto& xg, const auto& wg, const auto& yg, int64_t k) {
    correlate(group, xg, wg, channels_from(bias, k), relu, yg, workspace_limit);
  });
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit) {
  for_each_adjoint_group(s, dy, w, bias, relu, dx,
                         [&](const ConvShape& group, const auto& dyg, const auto& wg, const auto& bias_g,
                             const auto& dxg) { correlate(group, dyg, wg, bias_g, relu, dxg, workspace_limit); });
}

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  for_each_group(s, x, dw, dy, [&](const ConvShape& group, const auto& xg, const auto& dwg, const auto& dyg, int64_t) {
    reduce(group, dyg, xg, dwg, workspace_limit);
  });
}

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::direct
