// An output is cut into tiles, each computed from overlapping inputs d and filters g (Lavin and Gray, arXiv
// 1509.09308):
//
//   y = A^T [ sum over c of (G g G^T) * (B^T d B) ] A        * is elementwise: a product of matrices for each element
//
//   u[element][K panel][C][nr]   transformed filters
//   v[element][tile][C]          transformed inputs of some tiles
//   m[element][tile][K]          m[e] = v[e] u[e], for a panel or two of filters at a time, so that it stays in the
//                                second-level cache
//
//                tile   inputs d   elements   multiplications for an output
//   F(4x4, 3x3)  4x4    6x6        36         2.25, by definition 9
//   F(2x2, 3x3)  2x2    4x4        16         4
//   F(2x2, 5x5)  2x2    6x6        36         9, by definition 25
//
// Lanes are channels throughout, so a transform is the same few additions for every lane.
#include "winograd.hpp"

#include <algorithm>
#include <utility>

#include "adjoint.hpp"
#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "cpu/walk/phases.hpp"
#include "plan.hpp"
#include "tiles.hpp"

namespace fastconv::cpu::winograd {
namespace {

// Writes the stage's rows of outputs of some filters.
template <class T>
void unstage(const ConvShape& s, int64_t tile, const TileRun& run, int64_t k, const T* stage, const Tensor<T>& y) {
  const Axis &height = s.axis[1], &width = s.axis[2];
  const int64_t lanes = vector_lanes<T>();
  const auto channels = static_cast<int>(std::min(lanes, s.k - k));
  const int64_t count = std::min(width.out, run.end * tile) - run.begin * tile;
  for (int64_t r = 0; r < tile && run.row * tile + r < height.out; ++r) {
    const T* pixels = stage + r * kStageColumns * lanes;
    T* row = y.at(run.n, k) + (run.row * tile + r) * y.stride[3] + run.begin * tile * y.stride[4];
    write_row(pixels, channels, count, row, y.stride[1], y.stride[4]);
  }
}

// y of some tiles and filters, from their products m[element][tile][width]: written in place where a vector of channels
// can be, through the stage otherwise.
template <class T>
void transform_outputs(const ConvShape& s, const TileGrid& grid, Range tiles, Range filters, const T* m, int64_t stride,
                       int64_t width, const T* bias, bool relu, T* stage, const Tensor<T>& y) {
  const auto output = transforms<T>(grid).output;
  const int64_t lanes = vector_lanes<T>(), tile = grid.tile;
  for_each_tile_run(grid, tiles, [&](const TileRun& run) {
    const bool whole_rows = (run.row + 1) * tile <= s.axis[1].out;
    for (int64_t k = filters.begin; k < std::min(s.k, filters.end); k += lanes) {
      const T* products = m + run.first * width + (k - filters.begin);
      const bool in_place = y.stride[1] == 1 && k + lanes <= s.k && whole_rows;
      TileRun rest = run;
      if (in_place) rest.begin = std::clamp(s.axis[2].out / tile, run.begin, run.end);
      for (int64_t t = run.begin; t < rest.begin; ++t, products += width) {
        output(y.at(run.n, k) + run.row * tile * y.stride[3] + t * tile * y.stride[4], y.stride[3], y.stride[4],
               products, stride, bias + k, relu);
      }
      if (rest.begin == rest.end) continue;
      for (int64_t t = 0; t < rest.end - rest.begin; ++t) {
        output(stage + t * tile * lanes, kStageColumns * lanes, lanes, products + t * width, stride, bias + k, relu);
      }
      unstage(s, tile, rest, k, stage, y);
    }
  });
}

// Zeros after the last one.
template <class T>
void copy_bias(const Vector<const T>& bias, int64_t filters, int64_t count, T* out) {
  for (int64_t k = 0; k < count; ++k) out[k] = bias.data != nullptr && k < filters ? bias[k] : T(0);
}

template <class T>
void fprop_by_tiles(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w, const Vector<const T>& bias,
                    bool relu, const Tensor<T>& y, std::size_t workspace_limit) {
  const TilesPlan<T> plan(s, gemm_kernels<T>().rows_mr);
  const int threads = threads_within(workspace_limit, plan.shared, plan.thread, num_threads(), "winograd");
  const Workspace memory(plan.shared + static_cast<std::size_t>(threads) * plan.thread);
  T *u = memory.at<T>(0), *biases = memory.at<T>(plan.bias);
  copy_bias(bias, s.k, plan.panels.padded(), biases);
  make_filters(plan, s, w, threads, u);
  parallel_for(plan.blocks.count, threads, [&](int64_t block, int slot) {
    const std::size_t own = plan.shared + static_cast<std::size_t>(slot) * plan.thread;
    T *v = memory.at<T>(own), *m = memory.at<T>(own + plan.m), *stage = memory.at<T>(own + plan.stage);
    const Range tiles = plan.tiles(block);
    for_each_tile_run(plan.grid, tiles, [&](const TileRun& run) {
      transform_inputs(s, plan.grid, x, run, stage, plan.v_stride,
                       [&](int64_t c, int64_t t) { return v + (run.first + t) * plan.channels + c; });
    });
    plan.for_each_pass([&](Range panels, Range filters) {
      multiply_panels(plan, s, tiles.size(), panels, u, v, m);
      transform_outputs(s, plan.grid, tiles, filters, m, plan.m_stride, plan.width, biases, relu, stage, y);
    });
  });
}

// Large filters, or few tiles: u, which would be written to memory and read back, never exists. For a block of tiles
// whose v all threads share, each task transforms the filters of one panel, some channels at a time, and multiplies
// them at once: u[element][channel][nr], m[element][tile][nr]. As many channels of v lie side by side, since all tasks
// stream them from the last-level cache, and always so far apart: v[element][some channels][tile][kRowPitch].
template <class T>
struct FiltersPlan {
  static constexpr int64_t kInputs = 9 << 20;      // bytes of v: what the last-level cache holds
  static constexpr int64_t kProducts = 900 << 10;  // bytes of m
  static constexpr int64_t kChannels = kRowPitch;  // of u
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t lanes = vector_lanes<T>();
  TileGrid grid;
  int64_t channels, panels;
  Blocks blocks;  // of tiles
  int64_t v_stride, u_stride, m_stride;
  std::size_t bias, shared, m, stage, thread;  // the workspace: v, bias, and of each thread u, m, stage

  explicit FiltersPlan(const ConvShape& s)
      : grid(s),
        channels(ceil_div(s.c, kChannels) * kChannels),
        panels(ceil_div(s.k, static_cast<int64_t>(gemm.nr))),
        blocks(grid.count, std::min(kInputs / channels, kProducts / gemm.nr) /
                               (grid.elements() * static_cast<int64_t>(sizeof(T)))) {
    const int64_t line = static_cast<int64_t>(kCacheLine / sizeof(T));
    v_stride = blocks.size * channels + line;
    u_stride = kChannels * gemm.nr + line;
    m_stride = blocks.size * gemm.nr + line;
    bias = array_bytes(grid.elements(), v_stride, sizeof(T));
    shared = bias + array_bytes(panels * gemm.nr, 1, sizeof(T));
    m = array_bytes(grid.elements(), u_stride, sizeof(T));
    stage = m + array_bytes(grid.elements(), m_stride, sizeof(T));
    thread = stage + array_bytes(kStageRows * kStageColumns, lanes, sizeof(T));
  }
  int64_t at(int64_t tile, int64_t c) const { return (c / kChannels * blocks.size + tile) * kChannels + c % kChannels; }
};

// m += v u over some channels, or = for the first ones.
template <class T>
void multiply_channels(const FiltersPlan<T>& plan, int64_t tiles, Range channels, const T* v, const T* u, T* m) {
  const int64_t nr = plan.gemm.nr;
  const Blocks rows(tiles, plan.gemm.mr);
  for (int64_t e = 0; e < plan.grid.elements(); ++e) {
    for (int64_t block = 0; block < rows.count; ++block) {
      const Range row = rows[block];
      const T* a = v + e * plan.v_stride + plan.at(row.begin, channels.begin);
      T* out = m + e * plan.m_stride + row.begin * nr;
      plan.gemm.tile_pitched(channels.size(), a, kRowPitch, u + e * plan.u_stride, nr,
                             channels.begin == 0 ? nullptr : out, out, nr, static_cast<int>(row.size()), {},
                             {a + rows.size * kRowPitch, rows.size});
    }
  }
}

template <class T>
void fprop_by_filters(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w,
                      const Vector<const T>& bias, bool relu, const Tensor<T>& y, std::size_t workspace_limit) {
  const FiltersPlan<T> plan(s);
  const int64_t nr = plan.gemm.nr;
  const int threads = threads_within(workspace_limit, plan.shared, plan.thread, num_threads(), "winograd");
  const Workspace memory(plan.shared + static_cast<std::size_t>(threads) * plan.thread);
  T *v = memory.at<T>(0), *biases = memory.at<T>(plan.bias);
  copy_bias(bias, s.k, plan.panels * nr, biases);
  const auto own = [&](int slot, std::size_t part) {
    return memory.at<T>(plan.shared + static_cast<std::size_t>(slot) * plan.thread + part);
  };
  for (int64_t block = 0; block < plan.blocks.count; ++block) {
    const Range tiles = plan.blocks[block];
    parallel_for(ceil_div(s.c, plan.lanes), threads, [&](int64_t vector, int slot) {
      const int64_t first = vector * plan.lanes;
      ConvShape part = s;
      part.c = std::min(plan.lanes, s.c - first);
      for_each_tile_run(plan.grid, tiles, [&](const TileRun& run) {
        transform_inputs(part, plan.grid, {x.at(0, first), x.stride}, run, own(slot, plan.stage), plan.v_stride,
                         [&](int64_t, int64_t t) { return v + plan.at(run.first + t, first); });
      });
    });
    parallel_for(plan.panels, threads, [&](int64_t panel, int slot) {
      T *u = own(slot, 0), *m = own(slot, plan.m);
      for (int64_t c = 0; c < s.c; c += plan.kChannels) {
        const Range channels{c, std::min(s.c, c + plan.kChannels)};
        transform_filters(s, plan.grid, w, panel * nr, nr, channels, u, plan.u_stride);
        multiply_channels(plan, tiles.size(), channels, v, u, m);
      }
      transform_outputs(s, plan.grid, tiles, {panel * nr, (panel + 1) * nr}, m, plan.m_stride, nr, biases, relu,
                        own(slot, plan.stage), y);
    });
  }
}

}  // namespace

bool serves(const ConvShape& s) {
  const auto plain = [&](const Axis& a) { return a.filter == s.axis[1].filter && a.stride == 1 && a.dilation == 1; };
  return s.groups == 1 && (s.axis[1].filter == 3 || s.axis[1].filter == 5) && s.axis[0].pointwise() &&
         s.axis[0].in == 1 && plain(s.axis[1]) && plain(s.axis[2]);
}

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  const auto run = TilesPlan<T>::serves(s) ? fprop_by_tiles<T> : fprop_by_filters<T>;
  run(s, x, w, bias, relu, y, workspace_limit);
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> dx,
           std::size_t workspace_limit) {
  if (bias.data == nullptr && !relu && adjoint_serves<T>(s)) return adjoint(s, dy, w, dx, workspace_limit);
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
