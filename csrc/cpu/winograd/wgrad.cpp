// The weight gradient is its forward pass turned around (forward.cpp has the letters):
//
//   dw = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G        * is elementwise: a product for each element
//
//   e[element][some K][tile][k]    transformed gradients of a block of tiles, a few whole vectors and rows of a tile
//   v[element][C panel][tile][nr]  transformed inputs of the block
//   u[element][C panel][K][nr]     u[i] += e[i]^T v[i], block after block
//
// Where u is small, a task transforms and multiplies a part of the tiles by itself, so that e and v stay in its core's
// cache, and the u of all parts are added up. Elsewhere a block of tiles is what the last-level cache holds of e and v:
// all threads transform it, then each multiplies some of these. Where one block holds all tiles, u, which is larger
// than they are, never exists: each task makes dw of a panel of channels and some filters from a u of its own.
#include <algorithm>
#include <numeric>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/parts.hpp"
#include "schedules.hpp"

namespace fastconv::cpu::winograd {
namespace {

using namespace tuning::winograd;

template <class T>
struct WeightCut {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t lanes = vector_lanes<T>();
  TileGrid grid;
  int64_t panels, e_row;  // e_row: filters of e that lie side by side
  int64_t k;
  Blocks parts, blocks, rows;            // of tiles, of a part's tiles, of left panels: the filters of a task
  int64_t e_stride, v_stride, u_stride;  // between elements

  explicit WeightCut(const ConvShape& s)
      : grid(s),
        panels(ceil_div(s.c, static_cast<int64_t>(gemm.nr))),
        e_row(std::min(std::lcm(lanes, static_cast<int64_t>(gemm.mr)), ceil_div(s.k, lanes) * lanes)),
        k(s.k),
        parts(grid.count, part_tiles()),
        blocks(parts.size,
               parted() ? kPartOperands / tile_bytes() : std::max(kMinBlock, kBlockOperands / tile_bytes())),
        rows(ceil_div(s.k, static_cast<int64_t>(gemm.mr)), panels_of_a_task()) {
    constexpr auto kLine = static_cast<int64_t>(kCacheLine / sizeof(T));
    e_stride = blocks.size * padded_filters() + kLine;
    v_stride = blocks.size * panels * gemm.nr + kLine;
    u_stride = (one_block() ? rows.size * gemm.mr : panels * k) * gemm.nr + kLine;
  }
  int64_t e_at(int64_t filter, int64_t tile) const {
    return (filter / e_row * blocks.size + tile) * e_row + filter % e_row;
  }
  Range filters(int64_t task) const { return {rows[task].begin * gemm.mr, std::min(k, rows[task].end * gemm.mr)}; }
  // u[part][element][C panel][K][nr], from filter k on.
  int64_t u_at(int64_t part, int64_t element, int64_t panel, int64_t filter) const {
    return (part * grid.elements() + element) * u_stride + (panel * k + filter) * gemm.nr;
  }
  bool parted() const { return parts.count > 1; }
  bool one_block() const { return !parted() && blocks.count == 1; }

 private:
  int64_t padded_filters() const { return ceil_div(k, e_row) * e_row; }
  int64_t tile_bytes() const {  // of e and v
    return grid.elements() * (padded_filters() + panels * gemm.nr) * static_cast<int64_t>(sizeof(T));
  }
  // Of a part: their u are small beside e and v, or there is one part.
  int64_t part_tiles() const {
    const int64_t sums = grid.elements() * panels * k * gemm.nr * static_cast<int64_t>(sizeof(T));
    const int64_t operands = grid.count * tile_bytes();
    if (sums > kPartSums || operands < kOutweighSums * kEnoughTasks * sums) return grid.count;
    return ceil_div(grid.count, std::clamp(operands / (kOperandsOfPart * sums), kEnoughTasks, kMaxParts));
  }
  // One block has a task for each panel and some filters, several have one for each element.
  int64_t panels_of_a_task() const {
    const int64_t cuts = one_block() ? ceil_div(kEnoughTasks, panels) : 1;
    return std::min(kTaskFilters / gemm.mr, ceil_div(ceil_div(k, static_cast<int64_t>(gemm.mr)), cuts));
  }
};

// The ladder.
template <class T>
Schedule choose(const WeightCut<T>& cut) {
  if (cut.parted()) return Schedule::parts;
  if (cut.one_block()) return Schedule::panels;
  return Schedule::blocks;
}

// What the three have in common. e, v and u are a task's or all threads'.
template <class T>
class WeightJob : public Job {
 public:
  WeightJob(const Reduction<T>& call, const WeightCut<T>& cut)
      : Job(variant_of(cut.grid, choose(cut))), call_(call), cut_(cut) {}

 protected:
  // The last array; then the threads are fixed.
  void fit(std::size_t workspace_limit) {
    stage_ = scratch_.each<T>(kStageRows * kStageColumns, cut_.lanes);
    scratch_.fit(workspace_limit, num_threads(), "winograd");
  }

  // e and v of some tiles, from the tile `first` of their block on.
  void transform_tiles(Range tiles, int64_t first, T* e, T* v, T* stage) const {
    const int64_t nr = cut_.gemm.nr;
    for_each_tile_run(cut_.grid, tiles, [&](const TileRun& run) {
      const int64_t at = first + run.first;
      transform_inputs(call_.shape, cut_.grid, call_.x, run, stage, cut_.v_stride,
                       [&](int64_t c, int64_t t) { return v + (c / nr * cut_.blocks.size + at + t) * nr + c % nr; });
      transform_gradients(call_.shape, cut_.grid, call_.dy, run, stage, cut_.e_stride,
                          [&](int64_t k, int64_t t) { return e + cut_.e_at(k, at + t); });
    });
  }

  // The same by all threads.
  void transform_block(Range tiles, T* e, T* v, const Arrays& at) const {
    const Blocks some(tiles.size(), cut_.grid.staged());
    parallel_for(some.count, scratch_.threads(), [&](int64_t i, int slot) noexcept {
      const Range range{tiles.begin + some[i].begin, tiles.begin + some[i].end};
      transform_tiles(range, some[i].begin, e, v, at(stage_, slot));
    });
  }

  // u[k][nr] of one element and panel: += e^T v over the tiles of a block, or = for the first one.
  void multiply_rows(int64_t element, int64_t panel, Range rows, int64_t tiles, bool first, const T* e, const T* v,
                     T* u) const {
    const int mr = cut_.gemm.mr, nr = cut_.gemm.nr;
    const T* b = v + element * cut_.v_stride + panel * cut_.blocks.size * nr;
    for (int64_t k = rows.begin; k < rows.end; k += mr, u += mr * nr) {
      cut_.gemm.tile(tiles, e + element * cut_.e_stride + cut_.e_at(k, 0), cut_.e_row, b, nr, first ? nullptr : u, u,
                     nr, static_cast<int>(std::min<int64_t>(mr, rows.end - k)), {}, {b, 0});
    }
  }

  // dw[k] = G^T u[element][k][nr] G for the channels of one panel.
  void write_filter(int64_t k, int64_t panel, const T* u, T* stage) const {
    const Tensor<T>& dw = call_.dw;
    const int64_t nr = cut_.gemm.nr, lanes = cut_.lanes, taps = cut_.grid.taps, c_count = call_.shape.c;
    const bool joined = dw.stride[4] == 1 && dw.stride[3] == taps;
    for (int64_t c = panel * nr; c < std::min(c_count, (panel + 1) * nr); c += lanes, u += lanes) {
      transforms<T>(cut_.grid).filter_gradient(stage, u, cut_.u_stride);
      const auto channels = static_cast<int>(std::min(lanes, c_count - c));
      if (joined) {
        layout_kernels<T>().pixels_to_planes(dw.at(k, c), dw.stride[1], stage, lanes, channels, taps * taps);
        continue;
      }
      for (int64_t tap = 0; tap < taps * taps; ++tap) {
        T* cells = dw.at(k, c) + tap / taps * dw.stride[3] + tap % taps * dw.stride[4];
        for (int lane = 0; lane < channels; ++lane) cells[lane * dw.stride[1]] = stage[tap * lanes + lane];
      }
    }
  }

  Reduction<T> call_;
  WeightCut<T> cut_;
  ThreadArray<T> stage_;
};

// Each task makes the u of a part.
template <class T>
class PartsJob final : public WeightJob<T> {
 public:
  PartsJob(const Reduction<T>& call, const WeightCut<T>& cut, std::size_t workspace_limit) : WeightJob<T>(call, cut) {
    const int64_t elements = cut.grid.elements();
    e_ = scratch_.template each<T>(elements, cut.e_stride);
    v_ = scratch_.template each<T>(elements, cut.v_stride);
    u_ = scratch_.template shared<T>(elements, cut.u_stride * cut.parts.count);
    this->fit(workspace_limit);
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T* u = at(u_);
    parallel_for(cut_.parts.count, scratch_.threads(),
                 [&](int64_t part, int slot) noexcept { multiply_part(part, u, at, slot); });
    const int64_t elements = cut_.grid.elements();
    parallel_for(call_.shape.k, scratch_.threads(), [&](int64_t k, int slot) noexcept {
      for (int64_t panel = 0; panel < cut_.panels; ++panel) {
        for (int64_t i = 0; i < elements; ++i)
          sum_parts(u + cut_.u_at(0, i, panel, k), cut_.parts.count, elements * cut_.u_stride, cut_.gemm.nr);
        this->write_filter(k, panel, u + cut_.u_at(0, 0, panel, k), at(this->stage_, slot));
      }
    });
  }

 private:
  using WeightJob<T>::scratch_, WeightJob<T>::call_, WeightJob<T>::cut_;

  void multiply_part(int64_t part, T* u, const Arrays& at, int slot) const {
    T *e = at(e_, slot), *v = at(v_, slot);
    const Range all = cut_.parts[part];
    for (int64_t begin = all.begin; begin < all.end; begin += cut_.blocks.size) {
      const Range tiles{begin, std::min(all.end, begin + cut_.blocks.size)};
      this->transform_tiles(tiles, 0, e, v, at(this->stage_, slot));
      for (int64_t i = 0; i < cut_.grid.elements(); ++i) {
        for (int64_t panel = 0; panel < cut_.panels; ++panel) {
          this->multiply_rows(i, panel, {0, call_.shape.k}, tiles.size(), begin == all.begin, e, v,
                              u + cut_.u_at(part, i, panel, 0));
        }
      }
    }
  }

  ThreadArray<T> e_, v_;
  SharedArray<T> u_;
};

// There is one block. Each task makes dw of a panel of channels and some filters.
template <class T>
class PanelsJob final : public WeightJob<T> {
 public:
  PanelsJob(const Reduction<T>& call, const WeightCut<T>& cut, std::size_t workspace_limit) : WeightJob<T>(call, cut) {
    const int64_t elements = cut.grid.elements();
    e_ = scratch_.template shared<T>(elements, cut.e_stride);
    v_ = scratch_.template shared<T>(elements, cut.v_stride);
    u_ = scratch_.template each<T>(elements, cut.u_stride);
    this->fit(workspace_limit);
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    const T *e = at(e_), *v = at(v_);
    this->transform_block({0, cut_.grid.count}, at(e_), at(v_), at);
    parallel_for(cut_.panels * cut_.rows.count, scratch_.threads(), [&](int64_t task, int slot) noexcept {
      T* u = at(u_, slot);
      const int64_t panel = task / cut_.rows.count;
      const Range filters = cut_.filters(task % cut_.rows.count);
      for (int64_t i = 0; i < cut_.grid.elements(); ++i)
        this->multiply_rows(i, panel, filters, cut_.grid.count, true, e, v, u + i * cut_.u_stride);
      for (int64_t k = filters.begin; k < filters.end; ++k)
        this->write_filter(k, panel, u + (k - filters.begin) * cut_.gemm.nr, at(this->stage_, slot));
    });
  }

 private:
  using WeightJob<T>::scratch_, WeightJob<T>::cut_;

  SharedArray<T> e_, v_;
  ThreadArray<T> u_;
};

// Each task adds to an element of u, block after block.
template <class T>
class BlocksJob final : public WeightJob<T> {
 public:
  BlocksJob(const Reduction<T>& call, const WeightCut<T>& cut, std::size_t workspace_limit) : WeightJob<T>(call, cut) {
    const int64_t elements = cut.grid.elements();
    e_ = scratch_.template shared<T>(elements, cut.e_stride);
    v_ = scratch_.template shared<T>(elements, cut.v_stride);
    u_ = scratch_.template shared<T>(elements, cut.u_stride);
    this->fit(workspace_limit);
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T *e = at(e_), *v = at(v_), *u = at(u_);
    for (int64_t block = 0; block < cut_.blocks.count; ++block) {
      const Range tiles = cut_.blocks[block];
      this->transform_block(tiles, e, v, at);
      parallel_for(cut_.grid.elements() * cut_.rows.count, scratch_.threads(), [&](int64_t task, int) noexcept {
        const int64_t i = task / cut_.rows.count;
        const Range filters = cut_.filters(task % cut_.rows.count);
        for (int64_t panel = 0; panel < cut_.panels; ++panel) {
          this->multiply_rows(i, panel, filters, tiles.size(), block == 0, e, v,
                              u + cut_.u_at(0, i, panel, filters.begin));
        }
      });
    }
    parallel_for(call_.shape.k, scratch_.threads(), [&](int64_t k, int slot) noexcept {
      for (int64_t panel = 0; panel < cut_.panels; ++panel)
        this->write_filter(k, panel, u + cut_.u_at(0, 0, panel, k), at(this->stage_, slot));
    });
  }

 private:
  using WeightJob<T>::scratch_, WeightJob<T>::call_, WeightJob<T>::cut_;

  SharedArray<T> e_, v_, u_;
};

}  // namespace

template <class T>
std::unique_ptr<const Job> weight_job(const Reduction<T>& call, std::size_t workspace_limit) {
  const WeightCut<T> cut(call.shape);
  switch (choose(cut)) {
    case Schedule::parts:
      return std::make_unique<PartsJob<T>>(call, cut, workspace_limit);
    case Schedule::panels:
      return std::make_unique<PanelsJob<T>>(call, cut, workspace_limit);
    default:
      return std::make_unique<BlocksJob<T>>(call, cut, workspace_limit);
  }
}

template std::unique_ptr<const Job> weight_job(const Reduction<float>&, std::size_t);
template std::unique_ptr<const Job> weight_job(const Reduction<double>&, std::size_t);

}  // namespace fastconv::cpu::winograd
