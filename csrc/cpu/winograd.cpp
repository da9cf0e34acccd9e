// An output is cut into tiles of 4x4, each computed from 6x6 inputs d and filters g (Lavin and Gray, arXiv 1509.09308):
//
//   y = A^T [ sum over c of (G g G^T) * (B^T d B) ] A        * is elementwise: 36 products of matrices
//
//   u[36][K panel][C][nr]   transformed filters, once a call
//   v[36][tile][C]          transformed inputs of a task's tiles
//   m[36][tile][K]          m[e] = v[e] u[e], for some filters at a time, so that it stays in the second-level cache
//
// Lanes are channels throughout, so a transform is the same few additions for every lane.
#include "winograd.hpp"

#include <algorithm>
#include <utility>

#include "adjoint.hpp"
#include "gemm.hpp"
#include "patches.hpp"
#include "thread_pool.hpp"
#include "winograd_tiles.hpp"
#include "workspace.hpp"

namespace fastconv::cpu::winograd {
namespace {

constexpr int64_t kSmallInputs = 3 << 19;   // bytes of v: what a core finds again in the outer caches
constexpr int64_t kLargeInputs = 4 << 20;   // where each task reads filters from memory, more tiles should share them
constexpr int64_t kLargeFilters = 4 << 20;  // bytes of u that do not stay in the caches
constexpr int64_t kFilterPanels = 2;        // of m
constexpr int64_t kMinTasks = 8;

// How a call is cut, and the parts of its workspace in bytes.
template <class T>
struct Plan {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const WinogradKernels<T>& transform = winograd_kernels<T>();
  const int64_t lanes = transform.lanes;
  TileGrid grid;
  int64_t channels, filters;  // rounded up to whole vectors, to whole panels
  int64_t panels;
  Blocks tile_blocks, panel_blocks;  // of a task, in multiples of mr tiles and of panels
  int64_t v_stride, m_stride;        // elements between the 36 parts; odd numbers of cache lines, apart in every cache
  std::size_t u, bias, shared, v, m, stage, thread;

  explicit Plan(const ConvShape& s)
      : grid(s),
        channels(ceil_div(s.c, lanes) * lanes),
        filters(ceil_div(s.k, gemm.nr) * gemm.nr),
        panels(filters / gemm.nr),
        tile_blocks(ceil_div(grid.count, gemm.mr), tiles_of_a_task(s)),
        panel_blocks(panels, ceil_div(panels, ceil_div(kMinTasks, tile_blocks.count))) {
    const int64_t line = static_cast<int64_t>(kCacheLine / sizeof(T));
    v_stride = tile_blocks.size * gemm.mr * channels + line;
    m_stride = tile_blocks.size * gemm.mr * kFilterPanels * gemm.nr + line;
    u = 0;
    bias = u + array_bytes(kElements * filters, s.c, sizeof(T));
    shared = bias + array_bytes(filters, 1, sizeof(T));
    v = 0;
    m = v + array_bytes(kElements, v_stride, sizeof(T));
    stage = m + array_bytes(kElements, m_stride, sizeof(T));
    thread = stage + array_bytes(kSpan * kStageColumns, lanes, sizeof(T));
  }

  // In multiples of mr: what fits the caches, and where the filters do too, few enough for every thread to have some.
  int64_t tiles_of_a_task(const ConvShape& s) const {
    const auto item = static_cast<int64_t>(sizeof(T));
    const int64_t unit = kElements * channels * gemm.mr * item;
    if (kElements * filters * s.c * item > kLargeFilters) return kLargeInputs / unit;
    return std::min(kSmallInputs / unit, ceil_div(grid.count, gemm.mr) / kMinTasks);
  }
  Range tile_range(int64_t block) const {
    const Range units = tile_blocks[block];
    return {units.begin * gemm.mr, std::min(grid.count, units.end * gemm.mr)};
  }
};

// Writes the stage's rows of outputs of some filters.
template <class T>
void unstage(const Plan<T>& plan, const ConvShape& s, const TileRun& run, int64_t k, const T* stage,
             const Tensor<T>& y) {
  const Axis &height = s.axis[1], &width = s.axis[2];
  const auto channels = static_cast<int>(std::min(plan.lanes, s.k - k));
  const int64_t count = std::min(width.out, run.end * kTile) - run.begin * kTile;
  for (int64_t r = 0; r < kTile && run.row * kTile + r < height.out; ++r) {
    const T* pixels = stage + r * kStageColumns * plan.lanes;
    T* row = y.at(run.n, k) + (run.row * kTile + r) * y.stride[3] + run.begin * kTile * y.stride[4];
    if (y.stride[4] == 1) {
      plan.transform.pixels_to_planes(row, y.stride[1], pixels, plan.lanes, channels, count);
      continue;
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int lane = 0; lane < channels; ++lane)
        row[i * y.stride[4] + lane * y.stride[1]] = pixels[i * plan.lanes + lane];
    }
  }
}

// m[36][tile][filters of some panels] = v u, and from it y.
template <class T>
void multiply_panels(const Plan<T>& plan, const ConvShape& s, Range tiles, Range panels, const T* u, const T* v,
                     const T* bias, bool relu, T* m, T* stage, const Tensor<T>& y) {
  const int64_t mr = plan.gemm.mr, nr = plan.gemm.nr, width = kFilterPanels * nr;
  for (int64_t e = 0; e < kElements; ++e) {
    for (int64_t p = panels.begin; p < panels.end; ++p) {
      const T* b = u + (e * plan.panels + p) * s.c * nr;
      for (int64_t t = 0; t < tiles.size(); t += mr) {
        plan.gemm.tile_unpacked(s.c, v + e * plan.v_stride + t * plan.channels, plan.channels, b, nr, nullptr,
                                m + e * plan.m_stride + t * width + (p - panels.begin) * nr, width,
                                static_cast<int>(std::min(mr, tiles.size() - t)), {});
      }
    }
  }
  for_each_tile_run(plan.grid, tiles, [&](const TileRun& run) {
    for (int64_t k = panels.begin * nr; k < std::min(s.k, panels.end * nr); k += plan.lanes) {
      for (int64_t t = 0; t < run.end - run.begin; ++t) {
        plan.transform.output(stage + t * kTile * plan.lanes, kStageColumns * plan.lanes,
                              m + (run.first + t) * width + (k - panels.begin * nr), plan.m_stride, bias + k, relu);
      }
      unstage(plan, s, run, k, stage, y);
    }
  });
}

// g[c][tap][nr] of some filters and channels.
template <class T>
void pack_filters(const Tensor<const T>& w, int64_t filters, int64_t channels, int nr, T* g) {
  const bool joined = w.stride[4] == 1 && w.stride[3] == 3 && w.stride[1] == 9;
  if (joined) return MatrixOperand<T>(w.data, w.stride[0], 1).pack(g, nr, {0, filters}, {0, channels * 9}, nullptr);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < 9; ++tap, g += nr) {
      const T* cell = w.data + c * w.stride[1] + tap / 3 * w.stride[3] + tap % 3 * w.stride[4];
      for (int k = 0; k < nr; ++k) g[k] = k < filters ? cell[k * w.stride[0]] : T(0);
    }
  }
}

// u[36][panel][c][nr]: the filters of one panel, some channels at a time.
template <class T>
void transform_filters(const Plan<T>& plan, const ConvShape& s, const Tensor<const T>& w, int64_t panel, T* u) {
  constexpr int64_t kTaps = 9, kChannels = 8;
  const int64_t nr = plan.gemm.nr;
  alignas(kCacheLine) T g[kTaps * kChannels * 32];  // [c][tap][nr]
  const int64_t filters = std::min(nr, s.k - panel * nr);
  for (int64_t first = 0; first < s.c; first += kChannels) {
    const int64_t count = std::min(kChannels, s.c - first);
    const Tensor<const T> part{w.at(panel * nr, first), w.stride};
    pack_filters(part, filters, count, static_cast<int>(nr), g);
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t lane = 0; lane < nr; lane += plan.lanes) {
        plan.transform.filter(u + (panel * s.c + first + c) * nr + lane, plan.panels * s.c * nr,
                              g + c * kTaps * nr + lane, nr);
      }
    }
  }
}

}  // namespace

bool serves(const ConvShape& s) {
  const auto plain = [](const Axis& a) { return a.filter == 3 && a.stride == 1 && a.dilation == 1; };
  return s.groups == 1 && s.axis[0].pointwise() && s.axis[0].in == 1 && plain(s.axis[1]) && plain(s.axis[2]);
}

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  const Plan<T> plan(s);
  const int64_t tasks = plan.tile_blocks.count * plan.panel_blocks.count;
  const int threads = threads_within(workspace_limit, plan.shared, plan.thread,
                                     static_cast<int>(std::min<int64_t>(tasks, num_threads())), "winograd");
  const Workspace memory(plan.shared + static_cast<std::size_t>(threads) * plan.thread);
  T *u = memory.at<T>(plan.u), *biases = memory.at<T>(plan.bias);
  for (int64_t k = 0; k < plan.filters; ++k) biases[k] = bias.data != nullptr && k < s.k ? bias[k] : T(0);
  parallel_for(plan.panels, threads, [&](int64_t panel, int) { transform_filters(plan, s, w, panel, u); });

  parallel_for(tasks, threads, [&](int64_t task, int slot) {
    const std::size_t own = plan.shared + static_cast<std::size_t>(slot) * plan.thread;
    T *v = memory.at<T>(own + plan.v), *m = memory.at<T>(own + plan.m), *stage = memory.at<T>(own + plan.stage);
    const Range tiles = plan.tile_range(task / plan.panel_blocks.count);
    const Range panels = plan.panel_blocks[task % plan.panel_blocks.count];
    for_each_tile_run(plan.grid, tiles, [&](const TileRun& run) {
      transform_inputs(s, x, run, stage, plan.v_stride,
                       [&](int64_t c, int64_t t) { return v + (run.first + t) * plan.channels + c; });
    });
    for (int64_t p = panels.begin; p < panels.end; p += kFilterPanels) {
      multiply_panels(plan, s, tiles, {p, std::min(panels.end, p + kFilterPanels)}, u, v, biases, relu, m, stage, y);
    }
  });
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit) {
  for_each_phase(s, w, dx,
                 [&](ConvShape adjoint, Tensor<const T> taps, Tensor<T> inputs) {  // without stride, there is one
                   std::swap(adjoint.c, adjoint.k);
                   std::swap(taps.stride[0], taps.stride[1]);
                   fprop(adjoint, dy, taps, bias, relu, inputs, workspace_limit);
                 });
}

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::winograd
