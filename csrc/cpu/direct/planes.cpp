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
#include <memory>
#include <new>
#include <vector>

#include "blocks.hpp"
#include "cpu/gemm/filters.hpp"
#include "cpu/runtime/isa.hpp"
#include "cpu/walk/parts.hpp"
#include "cpu/walk/patches.hpp"
#include "cpu/walk/taps.hpp"
#include "jobs.hpp"

namespace fastconv::cpu::direct {
namespace {

using tuning::direct::kLongRow;

constexpr int64_t kMaxDot = 8;  // rows or columns of the largest tile of dot products

// In whole vectors.
template <class T>
int64_t stage_columns(int64_t columns) {
  const int64_t lanes = vector_lanes<T>();
  return ceil_div(columns, lanes) * lanes;
}

template <class T>
struct PlaneStage {
  ConvShape s;
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
    rows = height.span(row_blocks.size);
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
  int64_t units() const { return s.n * s.axis[0].out * row_blocks.count * column_blocks.count; }
};

template <class T>
void fill_stage(const PlaneStage<T>& stage, const Block& block, const Tensor<const T>& x, T* out) {
  const auto& [depth, height, width] = stage.s.axis;
  const int64_t rows = height.span(block.rows.size());
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

template <class T>
class PlanesJob final : public Job {
 public:
  PlanesJob(const Correlation<T>& c, std::size_t limit)
      : Job(kPlanes),
        s_(c.shape),
        x_(c.x),
        finish_(c.finish),
        y_(c.y),
        stage_(s_),
        blocks_(s_.k, gemm_kernels<T>().mr),
        filters_(s_, c.w, false) {
    const int64_t width = blocks_.size;
    packed_ = scratch_.shared<T>(blocks_.count * width, cells_);
    biases_ = scratch_.shared<T>(finish_.bias.data == nullptr ? 0 : s_.k);
    packing_ = scratch_.shared<std::byte>(static_cast<int64_t>(filters_.scratch_bytes(static_cast<int>(width))));
    staged_ = scratch_.each<T>(stage_.size);
    scratch_.fit(limit, threads_for(s_.flops()), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T *packed = at(packed_), *biases = finish_.bias.data == nullptr ? nullptr : at(biases_);
    filters_.pack(packed, static_cast<int>(blocks_.size), {0, s_.k}, {0, cells_}, at(packing_));
    for (int64_t k = 0; biases != nullptr && k < s_.k; ++k) biases[k] = finish_.bias[k];
    parallel_for(stage_.units(), scratch_.threads(), [&](int64_t unit, int slot) noexcept {
      const Block block(stage_, unit);
      fill_stage(stage_, block, x_, at(staged_, slot));
      for (int64_t i = 0; i < blocks_.count; ++i) {
        multiply_filters(stage_, block, at(staged_, slot), blocks_[i], packed + blocks_[i].begin * cells_, blocks_.size,
                         biases == nullptr ? nullptr : biases + blocks_[i].begin, finish_.relu, y_);
      }
    });
  }

 private:
  ConvShape s_;
  Tensor<const T> x_;
  Finish<T> finish_;
  Tensor<T> y_;
  PlaneStage<T> stage_;
  Blocks blocks_;  // of filters
  Filters<T> filters_;
  int64_t cells_ = s_.c * s_.taps();  // of a filter
  SharedArray<T> packed_, biases_;    // [block][cell][filters], [K]
  SharedArray<std::byte> packing_;
  ThreadArray<T> staged_;
};

template <class T>
class DotProductsJob final : public Job {
 public:
  DotProductsJob(const Reduction<T>& r, std::size_t limit)
      : Job(kDotProducts),
        s_(r.shape),
        dy_(r.dy),
        x_(r.x),
        dw_(r.dw),
        stage_(s_),
        parts_(stage_.units(), ceil_div(stage_.units(), kEnoughTasks)) {
    sum_step_ = static_cast<int64_t>(array_bytes(sum_size_, 1, sizeof(T)) / sizeof(T));
    sums_ = scratch_.shared<T>(parts_.count, sum_step_);
    staged_ = scratch_.each<T>(stage_.size);
    scratch_.fit(limit, threads_for(s_.flops()), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    parallel_for(parts_.count, scratch_.threads(), [&](int64_t part, int slot) noexcept {
      T *sums = at(sums_) + part * sum_step_, *staged = at(staged_, slot);
      std::fill_n(sums, sum_size_, T(0));
      for (int64_t unit = parts_[part].begin; unit < parts_[part].end; ++unit) {
        const Block block(stage_, unit);
        fill_stage(stage_, block, x_, staged);
        add_block(stage_, block, staged, dy_, sums);
      }
    });
    sum_parts(at(sums_), parts_.count, sum_step_, sum_size_);
    write(at(sums_));
  }

 private:
  void write(const T* total) const noexcept {
    for (int64_t k = 0; k < s_.k; ++k) {
      for (int64_t c = 0; c < s_.c; ++c) {
        for_each_cell(dw_, k, c, filter_extents(s_), {0, s_.taps()}, [&](T& gradient, int64_t tap) {
          const int64_t cell = c * s_.taps() + tap;
          gradient = total[((cell / cols_ * filter_tiles_ + k / rows_) * cols_ + cell % cols_) * rows_ + k % rows_];
        });
      }
    }
  }

  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
  PlaneStage<T> stage_;
  Blocks parts_;  // of the outputs, each with sums of its own
  int64_t rows_ = gemm_kernels<T>().dot_rows, cols_ = gemm_kernels<T>().dot_cols;
  int64_t filter_tiles_ = ceil_div(s_.k, rows_);
  int64_t sum_size_ = filter_tiles_ * ceil_div(s_.c * s_.taps(), cols_) * rows_ * cols_, sum_step_;
  SharedArray<T> sums_;  // [part][cell tile][filter tile][cols][rows]
  ThreadArray<T> staged_;
};

}  // namespace

template <class T>
std::unique_ptr<const Job> planes_job(const Correlation<T>& c, std::size_t limit) {
  return std::make_unique<PlanesJob<T>>(c, limit);
}

template <class T>
std::unique_ptr<const Job> dot_products_job(const Reduction<T>& r, std::size_t limit) {
  return std::make_unique<DotProductsJob<T>>(r, limit);
}

#define FASTCONV_INSTANTIATE(T)                                                       \
  template std::unique_ptr<const Job> planes_job(const Correlation<T>&, std::size_t); \
  template std::unique_ptr<const Job> dot_products_job(const Reduction<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::direct
