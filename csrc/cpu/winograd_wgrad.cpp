// The weight gradient is its forward pass turned around (winograd.cpp has the letters):
//
//   dw = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G        * is elementwise: a product for each element
//
//   e[element][some K][tile][k]    transformed gradients of a block of tiles, a few whole vectors and rows of a tile
//   v[element][C panel][tile][nr]  transformed inputs of the block
//   u[element][C panel][K][nr]     u[i] += e[i]^T v[i], block after block
//
// A block of tiles is what the last-level cache holds of e and v. All threads transform it, then each multiplies some
// of these. Where one block holds all tiles, u, which is larger than they are, never exists: each task makes dw of a
// panel of channels and some filters from a u of its own.
#include <algorithm>
#include <numeric>
#include <utility>

#include "gemm.hpp"
#include "patches.hpp"
#include "thread_pool.hpp"
#include "winograd.hpp"
#include "winograd_tiles.hpp"
#include "workspace.hpp"

namespace fastconv::cpu::winograd {
namespace {

constexpr int64_t kBlockBytes = 2 << 20;  // of e and v: what the second-level caches hold of two operands
constexpr int64_t kMinBlock = 128;        // tiles for which it pays to load and store all of u
constexpr int64_t kRows = 112;            // filters of a task of the products, in whole left panels
constexpr int64_t kMinTasks = 8;

template <class T>
struct Plan {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t lanes = winograd_kernels<T>().lanes;
  TileGrid grid;
  int64_t panels, e_row;  // e_row: filters of e that lie side by side
  int64_t k;
  Blocks blocks, rows;                      // of tiles, of left panels: the filters of a task
  int64_t e_stride, v_stride, u_stride;     // between elements
  std::size_t v, u, shared, stage, thread;  // the workspace: e, v, u, and of each thread u, stage; only one u is there

  explicit Plan(const ConvShape& s)
      : grid(s),
        panels(ceil_div(s.c, static_cast<int64_t>(gemm.nr))),
        e_row(std::min(std::lcm(lanes, static_cast<int64_t>(gemm.mr)), ceil_div(s.k, lanes) * lanes)),
        k(s.k),
        blocks(grid.count, std::max(kMinBlock, kBlockBytes / (grid.elements() * (padded_filters() + panels * gemm.nr) *
                                                              static_cast<int64_t>(sizeof(T))))),
        rows(ceil_div(s.k, static_cast<int64_t>(gemm.mr)), panels_of_a_task()) {
    e_stride = blocks.size * padded_filters() + static_cast<int64_t>(kCacheLine / sizeof(T));
    v_stride = blocks.size * panels * gemm.nr;
    u_stride =
        (one_block() ? rows.size * gemm.mr : panels * k) * gemm.nr + static_cast<int64_t>(kCacheLine / sizeof(T));
    const std::size_t u_bytes = array_bytes(grid.elements(), u_stride, sizeof(T));
    v = array_bytes(grid.elements(), e_stride, sizeof(T));
    u = v + array_bytes(grid.elements(), v_stride, sizeof(T));
    shared = u + (one_block() ? 0 : u_bytes);
    stage = one_block() ? u_bytes : 0;
    thread = stage + array_bytes(kStageRows * kStageColumns, lanes, sizeof(T));
  }
  int64_t padded_filters() const { return ceil_div(k, e_row) * e_row; }
  int64_t e_at(int64_t filter, int64_t tile) const {
    return (filter / e_row * blocks.size + tile) * e_row + filter % e_row;
  }
  Range filters(int64_t task) const { return {rows[task].begin * gemm.mr, std::min(k, rows[task].end * gemm.mr)}; }
  bool one_block() const { return blocks.count == 1; }
  // One block has a task for each panel and some filters, several have one for each element.
  int64_t panels_of_a_task() const {
    const int64_t cuts = one_block() ? ceil_div(kMinTasks, panels) : 1;
    return std::min(kRows / gemm.mr, ceil_div(ceil_div(k, static_cast<int64_t>(gemm.mr)), cuts));
  }
};

// u[element][k][nr] of one panel: += e^T v over the tiles of a block, or = for the first one.
template <class T>
void multiply_rows(const Plan<T>& plan, int64_t element, int64_t panel, Range rows, int64_t tiles, bool first,
                   const T* e, const T* v, T* u) {
  const int mr = plan.gemm.mr, nr = plan.gemm.nr;
  const T* b = v + element * plan.v_stride + panel * plan.blocks.size * nr;
  for (int64_t k = rows.begin; k < rows.end; k += mr, u += mr * nr) {
    plan.gemm.tile(tiles, e + element * plan.e_stride + plan.e_at(k, 0), plan.e_row, b, nr, first ? nullptr : u, u, nr,
                   static_cast<int>(std::min<int64_t>(mr, rows.end - k)), {}, {b, 0});
  }
}

// dw[k] = G^T u[k] G for the channels of one panel, u[element][nr].
template <class T>
void write_filter(const Plan<T>& plan, const ConvShape& s, int64_t k, int64_t panel, const T* u, T* stage,
                  const Tensor<T>& dw) {
  const WinogradKernels<T>& transform = winograd_kernels<T>();
  const int64_t nr = plan.gemm.nr, lanes = plan.lanes, taps = plan.grid.taps;
  const bool joined = dw.stride[4] == 1 && dw.stride[3] == taps;
  for (int64_t c = panel * nr; c < std::min(s.c, (panel + 1) * nr); c += lanes, u += lanes) {
    transforms<T>(plan.grid).filter_gradient(stage, u, plan.u_stride);
    const auto channels = static_cast<int>(std::min(lanes, s.c - c));
    if (joined) {
      transform.pixels_to_planes(dw.at(k, c), dw.stride[1], stage, lanes, channels, taps * taps);
      continue;
    }
    for (int64_t tap = 0; tap < taps * taps; ++tap) {
      T* cells = dw.at(k, c) + tap / taps * dw.stride[3] + tap % taps * dw.stride[4];
      for (int lane = 0; lane < channels; ++lane) cells[lane * dw.stride[1]] = stage[tap * lanes + lane];
    }
  }
}

// e and v of a block of tiles.
template <class T>
void transform_block(const Plan<T>& plan, const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x,
                     Range tiles, int threads, const Workspace& memory) {
  const int64_t nr = plan.gemm.nr;
  T *e = memory.at<T>(0), *v = memory.at<T>(plan.v);
  const Blocks parts(tiles.size(), plan.grid.staged());
  parallel_for(parts.count, threads, [&](int64_t part, int slot) {
    T* stage = memory.at<T>(plan.shared + static_cast<std::size_t>(slot) * plan.thread + plan.stage);
    const Range some{tiles.begin + parts[part].begin, tiles.begin + parts[part].end};
    for_each_tile_run(plan.grid, some, [&](const TileRun& run) {
      const int64_t first = parts[part].begin + run.first;
      transform_inputs(s, plan.grid, x, run, stage, plan.v_stride,
                       [&](int64_t c, int64_t t) { return v + (c / nr * plan.blocks.size + first + t) * nr + c % nr; });
      transform_gradients(s, plan.grid, dy, run, stage, plan.e_stride,
                          [&](int64_t k, int64_t t) { return e + plan.e_at(k, first + t); });
    });
  });
}

}  // namespace

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  const Plan<T> plan(s);
  const int64_t nr = plan.gemm.nr;
  const int threads = threads_within(workspace_limit, plan.shared, plan.thread, num_threads(), "winograd");
  const Workspace memory(plan.shared + static_cast<std::size_t>(threads) * plan.thread);
  const T *e = memory.at<T>(0), *v = memory.at<T>(plan.v);
  const auto own = [&](int slot) { return plan.shared + static_cast<std::size_t>(slot) * plan.thread; };
  const Blocks& rows = plan.rows;
  if (plan.one_block()) {
    transform_block(plan, s, dy, x, {0, plan.grid.count}, threads, memory);
    parallel_for(plan.panels * rows.count, threads, [&](int64_t task, int slot) {
      T *u = memory.at<T>(own(slot)), *stage = memory.at<T>(own(slot) + plan.stage);
      const int64_t panel = task / rows.count;
      const Range filters = plan.filters(task % rows.count);
      for (int64_t i = 0; i < plan.grid.elements(); ++i)
        multiply_rows(plan, i, panel, filters, plan.grid.count, true, e, v, u + i * plan.u_stride);
      for (int64_t k = filters.begin; k < filters.end; ++k)
        write_filter(plan, s, k, panel, u + (k - filters.begin) * nr, stage, dw);
    });
    return;
  }
  T* u = memory.at<T>(plan.u);
  for (int64_t block = 0; block < plan.blocks.count; ++block) {
    const Range tiles = plan.blocks[block];
    transform_block(plan, s, dy, x, tiles, threads, memory);
    parallel_for(plan.grid.elements() * rows.count, threads, [&](int64_t task, int) {
      const int64_t i = task / rows.count;
      const Range filters = plan.filters(task % rows.count);
      for (int64_t panel = 0; panel < plan.panels; ++panel) {
        multiply_rows(plan, i, panel, filters, tiles.size(), block == 0, e, v,
                      u + i * plan.u_stride + (panel * s.k + filters.begin) * nr);
      }
    });
  }
  parallel_for(s.k, threads, [&](int64_t k, int slot) {
    T* stage = memory.at<T>(own(slot) + plan.stage);
    for (int64_t panel = 0; panel < plan.panels; ++panel)
      write_filter(plan, s, k, panel, u + (panel * s.k + k) * nr, stage, dw);
  });
}

template void wgrad(const ConvShape&, Tensor<const float>, Tensor<const float>, Tensor<float>, std::size_t);
template void wgrad(const ConvShape&, Tensor<const double>, Tensor<const double>, Tensor<double>, std::size_t);

}  // namespace fastconv::cpu::winograd
