// Where a filter has few cells, turning tiles of outputs into rows of planes costs as much as computing them. Here the
// outputs of a row are lanes from the start:
//
//   y[K, outputs of a row] = w[K, F] patches[F, outputs of a row]
//
// Some rows of x are copied, with their padding, to a stage in which the vector of a patch that a filter's cell needs
// is one load, a fixed distance from the outputs:
//
//   stage[depth tap][row][C][column % stride][column / stride]
//
// In the weight gradient outputs are lanes too, and k of the dot products of dy's rows and those of the stage.
#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <vector>

#include "blocks.hpp"
#include "cpu/gemm/filters.hpp"
#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/taps.hpp"

namespace fastconv::cpu::direct {
namespace {

constexpr int64_t kFewCells = 160;  // of a filter
constexpr int64_t kLongRow = 4;     // vectors of outputs that are worth one more, to begin at a cache line
constexpr int64_t kMaxDot = 8;      // rows or columns of the largest tile of dot products

// In whole vectors.
template <class T>
int64_t stage_columns(int64_t columns) {
  const int64_t lanes = vector_lanes<T>();
  return ceil_div(columns, lanes) * lanes;
}

template <class T>
struct PlaneStage {
  const ConvShape& s;
  const int64_t lanes = vector_lanes<T>();
  Blocks row_blocks, column_blocks;
  int64_t phases, pitch;       // of columns; elements of one phase, whole vectors
  int64_t row, rows, size;     // elements of a row of the stage
  std::vector<int32_t> cells;  // of a filter, (c, t, r, s)

  explicit PlaneStage(const ConvShape& shape)
      : s(shape),
        row_blocks(s.axis[1].out, 1),
        column_blocks(s.axis[2].out, fitting<T>(s.axis[2], s.axis[0].filter * s.axis[1].window() * s.c)),
        phases(std::min(s.axis[2].stride, s.axis[2].window())),
        pitch(stage_columns<T>(read(column_blocks.size) + (s.axis[2].window() - 1) / s.axis[2].stride)),
        row(s.c * phases * pitch) {
    const auto& [depth, height, width] = s.axis;
    const int64_t tasks = s.flops() < kSerialFlops ? 1 : kEnoughTasks;
    const int64_t wanted = ceil_div(height.out, ceil_div(tasks, s.n * depth.out * column_blocks.count));
    const int64_t even = (std::min(fitting<T>(height, depth.filter * row), wanted) + 1) / 2 * 2;  // rows come in pairs
    row_blocks = Blocks(height.out, even);
    rows = span(height, row_blocks.size);
    if (depth.filter * rows > kMaxStage / row) throw std::bad_alloc();
    size = depth.filter * rows * row;
    const int64_t taps = s.taps();
    cells.resize(static_cast<std::size_t>(s.c * taps));
    for (int64_t tap = 0; tap < taps; ++tap) {
      const auto [t, r, f] = tap_at(s, tap);
      const int64_t column = f * width.dilation;
      int64_t cell = (t * rows + r * height.dilation) * row + column % width.stride * pitch + column / width.stride;
      for (int64_t c = 0; c < s.c; ++c, cell += phases * pitch)
        cells[static_cast<std::size_t>(c * taps + tap)] = static_cast<int32_t>(cell);
    }
  }

  // Columns that a tap reads for a row of so many outputs, in whole vectors, the first of which may be short
  // (multiply_filters).
  int64_t read(int64_t columns) const {
    return columns >= kLongRow * lanes ? columns + lanes : stage_columns<T>(columns);
  }
  std::size_t bytes() const { return array_bytes(size, 1, sizeof(T)); }
  int64_t units() const { return s.n * s.axis[0].out * row_blocks.count * column_blocks.count; }
};

template <class T>
void fill_stage(const PlaneStage<T>& stage, const Block& block, const Tensor<const T>& x, T* out) {
  const auto& [depth, height, width] = stage.s.axis;
  const int64_t rows = span(height, block.rows.size());
  for (int64_t phase = 0; phase < stage.phases; ++phase, out += stage.pitch) {
    const int64_t first = width.input(block.columns.begin, 0) + phase;  // of lane 0
    const Range real = real_cells(width, first, stage.pitch);
    for (int64_t t = 0; t < depth.filter; ++t) {
      const int64_t d = depth.input(block.z, t);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t h = height.input(block.rows.begin, 0) + r;
        const T* cells = x.at(block.n, 0) + d * x.stride[2] + h * x.stride[3] + first * x.stride[4];
        layout_kernels<T>().copy_padded(out + (t * stage.rows + r) * stage.row, stage.phases * stage.pitch, stage.pitch,
                                        cells, x.stride[1], width.stride * x.stride[4], real.begin,
                                        depth.inside(d) && height.inside(h) ? real.end : real.begin, stage.s.c, 0);
      }
    }
  }
}

// Elements to the next cache line: stores that cross one cost two.
template <class T>
int64_t to_alignment(const T* data) {
  return static_cast<int64_t>(-reinterpret_cast<std::uintptr_t>(data) % kCacheLine / sizeof(T));
}

// The outputs of a block for some filters, packed [cell][filters].
template <class T>
void multiply_filters(const PlaneStage<T>& stage, const Block& block, const T* staged, Range filters, const T* packed,
                      int64_t width, const T* bias, bool relu, const Tensor<T>& y) {
  const ConvShape& s = stage.s;
  const int64_t step = s.axis[1].stride * stage.row, rows = block.rows.size(), columns = block.columns.size();
  for (int64_t p = 0; p < rows; p += 2) {
    const bool pair = p + 1 < rows;
    const T* patches = staged + p * step;
    T* out = y.at(block.n, filters.begin) + block.z * y.stride[2] + (block.rows.begin + p) * y.stride[3] +
             block.columns.begin;
    const int64_t head = columns >= kLongRow * stage.lanes ? to_alignment(out) % stage.lanes : 0;
    for (int64_t q = 0, count = std::min(head == 0 ? stage.lanes : head, columns); count > 0;
         q += count, count = std::min(stage.lanes, columns - q)) {
      gemm_kernels<T>().tile_planes(static_cast<int64_t>(stage.cells.size()), packed, width, patches + q,
                                    pair ? step : 0, stage.cells.data(), out + q, y.stride[1], pair ? y.stride[3] : 0,
                                    static_cast<int>(filters.size()), static_cast<int>(count), {bias, nullptr, relu});
    }
  }
}

// The products of a block's patches and gradients, rows of outputs being k: added to sums[cell tile][filter tile].
template <class T>
void add_block(const PlaneStage<T>& stage, const Block& block, const T* staged, const Tensor<const T>& dy, T* sums) {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const ConvShape& s = stage.s;
  const int64_t cells = s.c * s.taps();
  std::array<const T*, kMaxDot> a, b;
  // Tiles that end beyond the last filter or cell take it again.
  for (int64_t cell = 0; cell < cells; cell += gemm.dot_cols) {
    for (int64_t j = 0; j < gemm.dot_cols; ++j)
      b[static_cast<std::size_t>(j)] = staged + stage.cells[static_cast<std::size_t>(std::min(cell + j, cells - 1))];
    for (int64_t k = 0; k < s.k; k += gemm.dot_rows, sums += gemm.dot_rows * gemm.dot_cols) {
      for (int64_t i = 0; i < gemm.dot_rows; ++i) {
        a[static_cast<std::size_t>(i)] = dy.at(block.n, std::min(k + i, s.k - 1)) + block.z * dy.stride[2] +
                                         block.rows.begin * dy.stride[3] + block.columns.begin;
      }
      gemm.dot(block.rows.size(), block.columns.size(), a.data(), dy.stride[3], b.data(), s.axis[1].stride * stage.row,
               0, 0, sums);
    }
  }
}

}  // namespace

// Measured over 3x3 and 5x5 filters, 4 to 64 of them, of 9 to 1200 cells, and rows of 8 to 112 outputs.
template <class T>
bool planes_serve(const ConvShape& s, const Tensor<const T>& x, const Tensor<T>& y) {
  if (x.stride[4] != 1 || y.stride[4] != 1) return false;
  const Axis& width = s.axis[2];
  const int64_t lanes = vector_lanes<T>(), used = width.out, padded = stage_columns<T>(used);
  const bool few_filters = s.k <= lanes && (width.stride == 1 ? 8 * used >= 5 * padded : 2 * used >= 3 * lanes);
  const bool few_cells = s.c * s.taps() <= kFewCells && 4 * used >= 3 * padded;
  return 4 * s.k <= 3 * lanes || few_filters || few_cells;
}

template <class T>
void correlate_planes(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w,
                      const Vector<const T>& bias, bool relu, const Tensor<T>& y, std::size_t workspace_limit) {
  const PlaneStage<T> stage(s);
  const Blocks blocks(s.k, gemm_kernels<T>().mr);
  const auto width = static_cast<int>(blocks.size);
  const int64_t cells = s.c * s.taps();
  const Filters<T> filters(s, w, false);
  const std::size_t panel_bytes = array_bytes(blocks.count * width, cells, sizeof(T));
  const std::size_t bias_bytes = bias.data == nullptr ? 0 : array_bytes(s.k, 1, sizeof(T));
  const std::size_t shared = panel_bytes + bias_bytes + filters.scratch_bytes(width);
  const std::size_t own = stage.bytes();
  const int threads = threads_within(workspace_limit, shared, own, threads_for(s), "direct");
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  T *packed = memory.at<T>(0), *biases = memory.at<T>(panel_bytes);
  filters.pack(packed, width, {0, s.k}, {0, cells}, memory.at<std::byte>(panel_bytes + bias_bytes));
  for (int64_t k = 0; bias.data != nullptr && k < s.k; ++k) biases[k] = bias[k];
  parallel_for(stage.units(), threads, [&](int64_t unit, int slot) {
    const Block block(stage, unit);
    T* staged = memory.at<T>(shared + static_cast<std::size_t>(slot) * own);
    fill_stage(stage, block, x, staged);
    for (int64_t i = 0; i < blocks.count; ++i) {
      multiply_filters(stage, block, staged, blocks[i], packed + blocks[i].begin * cells, width,
                       bias.data == nullptr ? nullptr : biases + blocks[i].begin, relu, y);
    }
  });
}

// With 16 registers the tiles of dot products are small: better than panels three quarters of which are empty, not than
// full ones.
template <class T>
bool planes_serve_reduction(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& dy) {
  if (x.stride[4] != 1 || dy.stride[4] != 1) return false;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t used = s.axis[2].out, padded = stage_columns<T>(used), cells = s.c * s.taps();
  const bool few_filters = 4 * s.k <= gemm.nr && cells <= kFewCells && 8 * used >= 5 * padded;
  const bool few_cells = gemm.dot_rows * gemm.dot_cols >= 24 && 2 * cells <= kFewCells && 4 * used >= 3 * padded;
  return few_filters || few_cells;
}

template <class T>
void reduce_planes(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
                   std::size_t workspace_limit) {
  const PlaneStage<T> stage(s);
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t rows = gemm.dot_rows, cols = gemm.dot_cols, filter_tiles = ceil_div(s.k, rows);
  const int64_t sum_size = filter_tiles * ceil_div(s.c * s.taps(), cols) * rows * cols;
  const Blocks parts(stage.units(), ceil_div(stage.units(), kEnoughTasks));  // each with sums of its own
  const std::size_t sum_bytes = array_bytes(sum_size, 1, sizeof(T));
  const std::size_t shared = array_bytes(parts.count, 1, sum_bytes);
  const std::size_t own = stage.bytes();
  const int threads = threads_within(workspace_limit, shared, own, threads_for(s), "direct");
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  const auto sums = [&](int64_t part) { return memory.at<T>(static_cast<std::size_t>(part) * sum_bytes); };
  parallel_for(parts.count, threads, [&](int64_t part, int slot) {
    T* staged = memory.at<T>(shared + static_cast<std::size_t>(slot) * own);
    std::fill_n(sums(part), sum_size, T(0));
    for (int64_t unit = parts[part].begin; unit < parts[part].end; ++unit) {
      const Block block(stage, unit);
      fill_stage(stage, block, x, staged);
      add_block(stage, block, staged, dy, sums(part));
    }
  });
  T* total = sums(0);
  for (int64_t part = 1; part < parts.count; ++part) {
    for (int64_t i = 0; i < sum_size; ++i) total[i] += sums(part)[i];
  }
  for (int64_t k = 0; k < s.k; ++k) {
    for (int64_t c = 0; c < s.c; ++c) {
      for_each_cell(dw, k, c, filter_extents(s), {0, s.taps()}, [&](T& gradient, int64_t tap) {
        const int64_t cell = c * s.taps() + tap;
        gradient = total[((cell / cols * filter_tiles + k / rows) * cols + cell % cols) * rows + k % rows];
      });
    }
  }
}

#define FASTCONV_INSTANTIATE(T)                                                                                   \
  template bool planes_serve_reduction(const ConvShape&, const Tensor<const T>&, const Tensor<const T>&);         \
  template void reduce_planes(const ConvShape&, const Tensor<const T>&, const Tensor<const T>&, const Tensor<T>&, \
                              std::size_t);                                                                       \
  template bool planes_serve(const ConvShape&, const Tensor<const T>&, const Tensor<T>&);                         \
  template void correlate_planes(const ConvShape&, const Tensor<const T>&, const Tensor<const T>&,                \
                                 const Vector<const T>&, bool, const Tensor<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::direct
