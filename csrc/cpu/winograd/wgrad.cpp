// The weight gradient is its forward pass turned around (winograd.cpp has the letters):
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
#include <utility>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "tiles.hpp"
#include "winograd.hpp"

namespace fastconv::cpu::winograd {
namespace {

constexpr int64_t kBlockBytes = 2 << 20;  // of e and v: what the second-level caches hold of two operands
constexpr int64_t kMinBlock = 128;        // tiles for which it pays to load and store all of u
constexpr int64_t kRows = 112;            // filters of a task of the products, in whole left panels
constexpr int64_t kMaxParts = 32;
constexpr int64_t kSmallSums = 1 << 20;  // bytes of u that stay in a second-level cache
constexpr int64_t kPartBytes = 1 << 20;  // of e and v beside them

template <class T>
struct Plan {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t lanes = vector_lanes<T>();
  TileGrid grid;
  int64_t panels, e_row;  // e_row: filters of e that lie side by side
  int64_t k;
  Blocks parts, blocks, rows;                   // of tiles, of a part's tiles, of left panels: the filters of a task
  int64_t e_stride, v_stride, u_stride;         // between elements
  std::size_t e = 0, v = 0, u = 0, shared = 0;  // the workspace: of all threads
  std::size_t stage = 0, thread = 0;            // and of each; e, v or u may be there, too

  explicit Plan(const ConvShape& s)
      : grid(s),
        panels(ceil_div(s.c, static_cast<int64_t>(gemm.nr))),
        e_row(std::min(std::lcm(lanes, static_cast<int64_t>(gemm.mr)), ceil_div(s.k, lanes) * lanes)),
        k(s.k),
        parts(grid.count, part_tiles()),
        blocks(parts.size, std::max(parted() ? 1 : kMinBlock, (parted() ? kPartBytes : kBlockBytes) / tile_bytes())),
        rows(ceil_div(s.k, static_cast<int64_t>(gemm.mr)), panels_of_a_task()) {
    constexpr auto kLine = static_cast<int64_t>(kCacheLine / sizeof(T));
    e_stride = blocks.size * padded_filters() + kLine;
    v_stride = blocks.size * panels * gemm.nr + kLine;
    u_stride = (one_block() ? rows.size * gemm.mr : panels * k) * gemm.nr + kLine;
    const auto take = [&](std::size_t& part, int64_t stride) {
      return std::exchange(part, part + array_bytes(grid.elements(), stride, sizeof(T)));
    };
    e = take(parted() ? thread : shared, e_stride);
    v = take(parted() ? thread : shared, v_stride);
    u = take(one_block() ? thread : shared, u_stride * parts.count);
    stage = std::exchange(thread, thread + array_bytes(kStageRows * kStageColumns, lanes, sizeof(T)));
  }
  int64_t padded_filters() const { return ceil_div(k, e_row) * e_row; }
  int64_t e_at(int64_t filter, int64_t tile) const {
    return (filter / e_row * blocks.size + tile) * e_row + filter % e_row;
  }
  Range filters(int64_t task) const { return {rows[task].begin * gemm.mr, std::min(k, rows[task].end * gemm.mr)}; }
  bool parted() const { return parts.count > 1; }
  bool one_block() const { return !parted() && blocks.count == 1; }

 private:
  int64_t tile_bytes() const {  // of e and v
    return grid.elements() * (padded_filters() + panels * gemm.nr) * static_cast<int64_t>(sizeof(T));
  }
  // Of a part: their u are small beside e and v, or there is one part.
  int64_t part_tiles() const {
    const int64_t sums = grid.elements() * panels * k * gemm.nr * static_cast<int64_t>(sizeof(T));
    const int64_t operands = grid.count * tile_bytes();
    if (sums > kSmallSums || operands < 2 * kEnoughTasks * sums) return grid.count;
    return ceil_div(grid.count, std::clamp(operands / (32 * sums), kEnoughTasks, kMaxParts));
  }
  // One block has a task for each panel and some filters, several have one for each element.
  int64_t panels_of_a_task() const {
    const int64_t cuts = one_block() ? ceil_div(kEnoughTasks, panels) : 1;
    return std::min(kRows / gemm.mr, ceil_div(ceil_div(k, static_cast<int64_t>(gemm.mr)), cuts));
  }
};

template <class T>
class WeightGradient {
 public:
  WeightGradient(const Plan<T>& plan, const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x,
                 const Tensor<T>& dw, int threads)
      : plan_(plan),
        s_(s),
        dy_(dy),
        x_(x),
        dw_(dw),
        threads_(threads),
        memory_(plan.shared + static_cast<std::size_t>(threads) * plan.thread) {}

  // Each task makes the u of a part.
  void by_parts() {
    parallel_for(plan_.parts.count, threads_, [&](int64_t part, int slot) {
      T *e = own(slot, plan_.e), *v = own(slot, plan_.v);
      const Range all = plan_.parts[part];
      for (int64_t begin = all.begin; begin < all.end; begin += plan_.blocks.size) {
        const Range tiles{begin, std::min(all.end, begin + plan_.blocks.size)};
        transform_tiles(tiles, 0, e, v, own(slot, plan_.stage));
        for (int64_t i = 0; i < elements_; ++i) {
          for (int64_t panel = 0; panel < plan_.panels; ++panel)
            multiply_rows(i, panel, {0, s_.k}, tiles.size(), begin == all.begin, e, v, sums(part, i, panel, 0));
        }
      }
    });
    parallel_for(s_.k, threads_, [&](int64_t k, int slot) {
      for (int64_t panel = 0; panel < plan_.panels; ++panel) add_parts(panel, k);
      write_filters(k, slot);
    });
  }

  // There is one block. Each task makes dw of a panel of channels and some filters.
  void by_panels() {
    T *e = memory_.at<T>(plan_.e), *v = memory_.at<T>(plan_.v);
    transform_block({0, plan_.grid.count}, e, v);
    parallel_for(plan_.panels * plan_.rows.count, threads_, [&](int64_t task, int slot) {
      T* u = own(slot, plan_.u);
      const int64_t panel = task / plan_.rows.count;
      const Range filters = plan_.filters(task % plan_.rows.count);
      for (int64_t i = 0; i < elements_; ++i)
        multiply_rows(i, panel, filters, plan_.grid.count, true, e, v, u + i * plan_.u_stride);
      for (int64_t k = filters.begin; k < filters.end; ++k)
        write_filter(k, panel, u + (k - filters.begin) * plan_.gemm.nr, own(slot, plan_.stage));
    });
  }

  // Each task adds to an element of u, block after block.
  void by_blocks() {
    T *e = memory_.at<T>(plan_.e), *v = memory_.at<T>(plan_.v);
    for (int64_t block = 0; block < plan_.blocks.count; ++block) {
      const Range tiles = plan_.blocks[block];
      transform_block(tiles, e, v);
      parallel_for(elements_ * plan_.rows.count, threads_, [&](int64_t task, int) {
        const int64_t i = task / plan_.rows.count;
        const Range filters = plan_.filters(task % plan_.rows.count);
        for (int64_t panel = 0; panel < plan_.panels; ++panel)
          multiply_rows(i, panel, filters, tiles.size(), block == 0, e, v, sums(0, i, panel, filters.begin));
      });
    }
    parallel_for(s_.k, threads_, [&](int64_t k, int slot) { write_filters(k, slot); });
  }

 private:
  T* own(int slot, std::size_t offset) const {
    return memory_.at<T>(plan_.shared + static_cast<std::size_t>(slot) * plan_.thread + offset);
  }
  // u[part][element][C panel][K][nr], from filter k on.
  T* sums(int64_t part, int64_t element, int64_t panel, int64_t k) const {
    return memory_.at<T>(plan_.u) + (part * elements_ + element) * plan_.u_stride + (panel * s_.k + k) * plan_.gemm.nr;
  }

  // e and v of some tiles, from the tile `first` of their block on.
  void transform_tiles(Range tiles, int64_t first, T* e, T* v, T* stage) const {
    const int64_t nr = plan_.gemm.nr;
    for_each_tile_run(plan_.grid, tiles, [&](const TileRun& run) {
      const int64_t at = first + run.first;
      transform_inputs(s_, plan_.grid, x_, run, stage, plan_.v_stride,
                       [&](int64_t c, int64_t t) { return v + (c / nr * plan_.blocks.size + at + t) * nr + c % nr; });
      transform_gradients(s_, plan_.grid, dy_, run, stage, plan_.e_stride,
                          [&](int64_t k, int64_t t) { return e + plan_.e_at(k, at + t); });
    });
  }

  void transform_block(Range tiles, T* e, T* v) const {
    const Blocks some(tiles.size(), plan_.grid.staged());
    parallel_for(some.count, threads_, [&](int64_t i, int slot) {
      const Range range{tiles.begin + some[i].begin, tiles.begin + some[i].end};
      transform_tiles(range, some[i].begin, e, v, own(slot, plan_.stage));
    });
  }

  // u[element][k][nr] of one panel: += e^T v over the tiles of a block, or = for the first one.
  void multiply_rows(int64_t element, int64_t panel, Range rows, int64_t tiles, bool first, const T* e, const T* v,
                     T* u) const {
    const int mr = plan_.gemm.mr, nr = plan_.gemm.nr;
    const T* b = v + element * plan_.v_stride + panel * plan_.blocks.size * nr;
    for (int64_t k = rows.begin; k < rows.end; k += mr, u += mr * nr) {
      plan_.gemm.tile(tiles, e + element * plan_.e_stride + plan_.e_at(k, 0), plan_.e_row, b, nr, first ? nullptr : u,
                      u, nr, static_cast<int>(std::min<int64_t>(mr, rows.end - k)), {}, {b, 0});
    }
  }

  // The u of the first part += those of the others, for a filter and the channels of one panel.
  void add_parts(int64_t panel, int64_t k) const {
    for (int64_t i = 0; i < elements_; ++i) {
      T* sum = sums(0, i, panel, k);
      for (int64_t part = 1; part < plan_.parts.count; ++part) {
        const T* other = sums(part, i, panel, k);
        for (int c = 0; c < plan_.gemm.nr; ++c) sum[c] += other[c];
      }
    }
  }

  // dw[k] = G^T u[k] G.
  void write_filters(int64_t k, int slot) const {
    for (int64_t panel = 0; panel < plan_.panels; ++panel)
      write_filter(k, panel, sums(0, 0, panel, k), own(slot, plan_.stage));
  }

  // Of the channels of one panel, u[element][nr].
  void write_filter(int64_t k, int64_t panel, const T* u, T* stage) const {
    const int64_t nr = plan_.gemm.nr, lanes = plan_.lanes, taps = plan_.grid.taps;
    const bool joined = dw_.stride[4] == 1 && dw_.stride[3] == taps;
    for (int64_t c = panel * nr; c < std::min(s_.c, (panel + 1) * nr); c += lanes, u += lanes) {
      transforms<T>(plan_.grid).filter_gradient(stage, u, plan_.u_stride);
      const auto channels = static_cast<int>(std::min(lanes, s_.c - c));
      if (joined) {
        layout_kernels<T>().pixels_to_planes(dw_.at(k, c), dw_.stride[1], stage, lanes, channels, taps * taps);
        continue;
      }
      for (int64_t tap = 0; tap < taps * taps; ++tap) {
        T* cells = dw_.at(k, c) + tap / taps * dw_.stride[3] + tap % taps * dw_.stride[4];
        for (int lane = 0; lane < channels; ++lane) cells[lane * dw_.stride[1]] = stage[tap * lanes + lane];
      }
    }
  }

  const Plan<T>& plan_;
  const ConvShape& s_;
  const Tensor<const T>&dy_, &x_;
  const Tensor<T>& dw_;
  int threads_;
  Workspace memory_;
  const int64_t elements_ = plan_.grid.elements();
};

}  // namespace

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  const Plan<T> plan(s);
  const int threads = threads_within(workspace_limit, plan.shared, plan.thread, num_threads(), "winograd");
  WeightGradient<T> pass(plan, s, dy, x, dw, threads);
  if (plan.parted()) return pass.by_parts();
  if (plan.one_block()) return pass.by_panels();
  pass.by_blocks();
}

template void wgrad(const ConvShape&, Tensor<const float>, Tensor<const float>, Tensor<float>, std::size_t);
template void wgrad(const ConvShape&, Tensor<const double>, Tensor<const double>, Tensor<double>, std::size_t);

}  // namespace fastconv::cpu::winograd
