// What the forward pass and the input gradient share: transformed filters, and tasks of tiles that use all of them.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "cpu/gemm/cut.hpp"
#include "cpu/runtime/scratch.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "tiles.hpp"

namespace fastconv::cpu::winograd {

// g[c][tap][width] of some filters and channels.
template <class T>
void pack_filters(const Tensor<const T>& w, int64_t taps, int64_t filters, int64_t channels, int width, T* g) {
  const bool joined = w.stride[4] == 1 && w.stride[3] == taps && w.stride[1] == taps * taps;
  if (joined) {
    return MatrixOperand<T>(w.data, w.stride[0], 1).pack(g, width, {0, filters}, {0, channels * taps * taps}, nullptr);
  }
  const LayoutKernels<T>& layout = layout_kernels<T>();
  const int64_t cells = taps * taps, step = w.stride[4];
  const bool neighbours = std::abs(step) == 1 && w.stride[3] == taps * step;  // backwards in an input gradient
  for (int64_t c = 0; c < channels; ++c, g += cells * width) {
    const T* first_filter = w.data + c * w.stride[1];
    for (int64_t k = 0; neighbours && k < width; k += layout.lanes) {
      const auto some = static_cast<int>(std::clamp<int64_t>(filters - k, 0, layout.lanes));
      layout.planes_to_pixels(g + k + (step < 0 ? (cells - 1) * width : 0), step * width,
                              first_filter + k * w.stride[0] + (step < 0 ? 1 - cells : 0), w.stride[0], some, cells);
    }
    for (int64_t tap = 0; !neighbours && tap < cells; ++tap) {
      const T* cell = first_filter + tap / taps * w.stride[3] + tap % taps * w.stride[4];
      for (int k = 0; k < width; ++k) g[tap * width + k] = k < filters ? cell[k * w.stride[0]] : T(0);
    }
  }
}

// u[element][channel][width], elements `stride` apart: some channels of the filters of one panel, from k on.
template <class T>
void transform_filters(const ConvShape& s, const TileGrid& grid, const Tensor<const T>& w, int64_t k, int64_t width,
                       Range channels, T* u, int64_t stride) {
  const auto filter = transforms<T>(grid).filter;
  const int64_t lanes = vector_lanes<T>(), taps = grid.taps, rows = taps * taps,
                some = tuning::winograd::kStagedTaps / rows;
  alignas(kCacheLine) T g[tuning::winograd::kStagedTaps * kMaxWidth];  // [c][tap][width] of some channels
  const int64_t filters = std::min(width, s.k - k);
  for (int64_t first = channels.begin; first < channels.end; first += some) {
    const int64_t count = std::min(some, channels.end - first);
    const Tensor<const T> part{w.at(k, first), w.stride};
    pack_filters(part, taps, filters, count, static_cast<int>(width), g);
    for (int64_t c = 0; c < count; ++c, u += width) {
      for (int64_t lane = 0; lane < width; lane += lanes) filter(u + lane, stride, g + c * rows * width + lane, width);
    }
  }
}

// Small filters, many tiles: u is made once, and each task does all there is to do for its tiles.
template <class T>
struct TilesPlan {
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  TileGrid grid;
  int64_t unit;                // tiles
  int64_t channels;            // rounded up to whole vectors
  Panels panels;               // of filters
  int64_t width;               // of m: the filters of a panel or two
  Blocks blocks;               // of units, the tasks
  int64_t v_stride, m_stride;  // between elements; odd numbers of cache lines, apart in every cache
  SharedArray<T> u, bias;
  ThreadArray<T> v, m, stage;

  // Tasks are some units of so many tiles.
  TilesPlan(const ConvShape& s, int64_t tiles_of_unit, int64_t stage_cells, Scratch& scratch)
      : grid(s),
        unit(tiles_of_unit),
        channels(ceil_div(s.c, vector_lanes<T>()) * vector_lanes<T>()),
        panels(s.k, gemm.rows_nr, vector_lanes<T>(), 0),
        width(4 * vector_lanes<T>()),
        blocks(ceil_div(grid.count, unit), std::min(tuning::winograd::kTaskInputs / (grid.elements() * channels * unit *
                                                                                     static_cast<int64_t>(sizeof(T))),
                                                    ceil_div(grid.count, unit) / tuning::winograd::kTileTasks)) {
    const int64_t line = static_cast<int64_t>(kCacheLine / sizeof(T));
    v_stride = blocks.size * unit * channels | line;
    m_stride = blocks.size * unit * width + line;
    u = scratch.shared<T>(grid.elements() * panels.padded(), s.c);
    bias = scratch.shared<T>(panels.padded());
    v = scratch.each<T>(grid.elements(), v_stride);
    m = scratch.each<T>(grid.elements(), m_stride);
    stage = scratch.each<T>(stage_cells, vector_lanes<T>());
  }
  static bool small_filters(const ConvShape& s) {
    return TileGrid(s).elements() * s.k * s.c * static_cast<int64_t>(sizeof(T)) <= tuning::winograd::kSmallFilters;
  }
  Range tiles(int64_t block) const {
    const Range units = blocks[block];
    return {units.begin * unit, std::min(grid.count, units.end * unit)};
  }
  // Calls pass(panels, filters of them) for as many panels at a time as m has room for.
  template <class Pass>
  void for_each_pass(Pass pass) const {
    const Blocks passes(panels.count(), width / gemm.rows_nr);
    for (int64_t i = 0; i < passes.count; ++i) pass(passes[i], panels.lanes(passes[i]));
  }
};

// u[element][panel][channel][filters of it], of all.
template <class T>
void make_filters(const TilesPlan<T>& plan, const ConvShape& s, const Tensor<const T>& w, int threads, T* u) {
  const Blocks parts(s.c, tuning::winograd::kFilterChannels);
  parallel_for(plan.panels.count() * parts.count, threads, [&](int64_t task, int) noexcept {
    const int64_t panel = task / parts.count, k = plan.panels.first(panel), width = plan.panels.width(panel);
    const Range channels = parts[task % parts.count];
    transform_filters(s, plan.grid, w, k, width, channels, u + k * s.c + channels.begin * width,
                      plan.panels.padded() * s.c);
  });
}

// m[element][tile][filters of some panels] = v u.
template <class T>
void multiply_panels(const TilesPlan<T>& plan, const ConvShape& s, int64_t tiles, Range panels, const T* u, const T* v,
                     T* m) {
  const int64_t mr = plan.gemm.rows_mr;
  for (int64_t e = 0; e < plan.grid.elements(); ++e) {
    for (int64_t p = panels.begin; p < panels.end; ++p) {
      const T* b = u + (e * plan.panels.padded() + plan.panels.first(p)) * s.c;
      T* out = m + e * plan.m_stride + plan.panels.first(p) - plan.panels.first(panels.begin);
      const auto tile = plan.gemm.tiles_by_rows[plan.panels.width(p) / vector_lanes<T>()];
      for (int64_t t = 0; t < tiles; t += mr) {
        tile(s.c, v + e * plan.v_stride + t * plan.channels, plan.channels, b, plan.panels.width(p), nullptr,
             out + t * plan.width, plan.width, static_cast<int>(std::min(mr, tiles - t)), {}, {b, 0});
      }
    }
  }
}

}  // namespace fastconv::cpu::winograd
