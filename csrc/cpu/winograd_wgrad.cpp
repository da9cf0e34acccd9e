// The weight gradient of F(4x4, 3x3) is its forward pass turned around (winograd.cpp has the letters):
//
//   dw = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G        * is elementwise: 36 products of matrices
//
//   e[36][tile][K]            transformed gradients of a block of tiles
//   v[36][C panel][tile][nr]  transformed inputs of the block
//   u[36][C panel][K][nr]     u[i] += e[i]^T v[i], block after block
//
// A block of tiles is what the last-level cache holds of e and v. All threads transform it, then each multiplies some
// of the 36.
#include <algorithm>
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
constexpr int64_t kRowPanels = 8;         // left panels of a task of the products

template <class T>
struct Plan {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t lanes = winograd_kernels<T>().lanes;
  TileGrid grid;
  int64_t panels, e_row, block_tiles;    // e_row: K, and a line more, so that rows lie apart in every cache
  int64_t e_stride, v_stride, u_stride;  // elements between the 36 parts
  std::size_t e, v, u, shared, thread;   // parts of the workspace, in bytes

  explicit Plan(const ConvShape& s)
      : grid(s),
        panels(ceil_div(s.c, static_cast<int64_t>(gemm.nr))),
        e_row(ceil_div(s.k, lanes) * lanes + static_cast<int64_t>(kCacheLine / sizeof(T))) {
    const int64_t tile_bytes = kElements * (e_row + panels * gemm.nr) * static_cast<int64_t>(sizeof(T));
    block_tiles = Blocks(grid.count, std::max(kMinBlock, kBlockBytes / tile_bytes)).size;
    e_stride = block_tiles * e_row;
    v_stride = block_tiles * panels * gemm.nr;
    u_stride = panels * s.k * gemm.nr;
    e = 0;
    v = e + array_bytes(kElements, e_stride, sizeof(T));
    u = v + array_bytes(kElements, v_stride, sizeof(T));
    shared = u + array_bytes(kElements, u_stride, sizeof(T));
    thread = array_bytes(kSpan * kStageColumns, lanes, sizeof(T));
  }
};

// A dy A^T of the tiles of a run.
template <class T, class Place>
void transform_gradients(const ConvShape& s, const Tensor<const T>& dy, const TileRun& run, T* stage, int64_t stride,
                         Place place) {
  const WinogradKernels<T>& transform = winograd_kernels<T>();
  const int64_t tiles = run.end - run.begin, lanes = transform.lanes;
  for (int64_t k = 0; k < s.k; k += lanes) {
    stage_cells(dy, run.n, k, static_cast<int>(std::min(lanes, s.k - k)), s.axis[1].out, s.axis[2].out, run.row * kTile,
                kTile, run.begin * kTile, kTile * tiles, stage);
    for (int64_t t = 0; t < tiles; ++t)
      transform.gradient(place(k, t), stride, stage + t * kTile * lanes, kStageColumns * lanes);
  }
}

// u[element][panel][rows] += e^T v over the tiles of a block, or = for the first one.
template <class T>
void multiply_rows(const Plan<T>& plan, const ConvShape& s, int64_t element, Range rows, int64_t tiles, bool first,
                   const T* e, const T* v, T* u) {
  const int mr = plan.gemm.mr, nr = plan.gemm.nr;
  for (int64_t panel = 0; panel < plan.panels; ++panel) {
    const T* b = v + element * plan.v_stride + panel * plan.block_tiles * nr;
    for (int64_t k = rows.begin; k < rows.end; k += mr) {
      T* out = u + element * plan.u_stride + (panel * s.k + k) * nr;
      plan.gemm.tile(tiles, e + element * plan.e_stride + k, plan.e_row, b, nr, first ? nullptr : out, out, nr,
                     static_cast<int>(std::min<int64_t>(mr, rows.end - k)), {});
    }
  }
}

// dw[k] = G^T u[k] G for all channels of filter k.
template <class T>
void write_filter(const Plan<T>& plan, const ConvShape& s, int64_t k, const T* u, T* stage, const Tensor<T>& dw) {
  const WinogradKernels<T>& transform = winograd_kernels<T>();
  const int64_t nr = plan.gemm.nr, lanes = plan.lanes;
  const bool joined = dw.stride[4] == 1 && dw.stride[3] == 3;
  for (int64_t c = 0; c < s.c; c += lanes) {
    transform.filter_gradient(stage, u + (c / nr * s.k + k) * nr + c % nr, plan.u_stride);
    const auto channels = static_cast<int>(std::min(lanes, s.c - c));
    if (joined) {
      transform.pixels_to_planes(dw.at(k, c), dw.stride[1], stage, lanes, channels, 9);
      continue;
    }
    for (int64_t tap = 0; tap < 9; ++tap) {
      T* cells = dw.at(k, c) + tap / 3 * dw.stride[3] + tap % 3 * dw.stride[4];
      for (int lane = 0; lane < channels; ++lane) cells[lane * dw.stride[1]] = stage[tap * lanes + lane];
    }
  }
}

}  // namespace

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  const Plan<T> plan(s);
  const int64_t nr = plan.gemm.nr;
  const int threads = threads_within(workspace_limit, plan.shared, plan.thread, num_threads(), "winograd");
  const Workspace memory(plan.shared + static_cast<std::size_t>(threads) * plan.thread);
  T *e = memory.at<T>(plan.e), *v = memory.at<T>(plan.v), *u = memory.at<T>(plan.u);
  const auto stage = [&](int slot) { return memory.at<T>(plan.shared + static_cast<std::size_t>(slot) * plan.thread); };
  const Blocks blocks(plan.grid.count, plan.block_tiles), rows(s.k, kRowPanels * plan.gemm.mr);
  for (int64_t block = 0; block < blocks.count; ++block) {
    const Range tiles = blocks[block];
    const Blocks parts(tiles.size(), kStageTiles);
    parallel_for(parts.count, threads, [&](int64_t part, int slot) {
      const Range some{tiles.begin + parts[part].begin, tiles.begin + parts[part].end};
      for_each_tile_run(plan.grid, some, [&](const TileRun& run) {
        const int64_t first = parts[part].begin + run.first;
        transform_inputs(s, x, run, stage(slot), plan.v_stride, [&](int64_t c, int64_t t) {
          return v + (c / nr * plan.block_tiles + first + t) * nr + c % nr;
        });
        transform_gradients(s, dy, run, stage(slot), plan.e_stride,
                            [&](int64_t k, int64_t t) { return e + (first + t) * plan.e_row + k; });
      });
    });
    parallel_for(kElements * rows.count, threads, [&](int64_t task, int) {
      multiply_rows(plan, s, task / rows.count, rows[task % rows.count], tiles.size(), block == 0, e, v, u);
    });
  }
  parallel_for(s.k, threads, [&](int64_t k, int slot) { write_filter(plan, s, k, u, stage(slot), dw); });
}

template void wgrad(const ConvShape&, Tensor<const float>, Tensor<const float>, Tensor<float>, std::size_t);
template void wgrad(const ConvShape&, Tensor<const double>, Tensor<const double>, Tensor<double>, std::size_t);

}  // namespace fastconv::cpu::winograd
