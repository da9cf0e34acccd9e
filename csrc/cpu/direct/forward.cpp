// The micro-kernel of the matrix product reads the patches of neighbouring outputs in the stage of direct_stage.hpp,
// `stride * C` apart, against packed filters:
//
//   y[outputs, K] = patches[outputs, F] w^T[F, K]
//
// Planes are turned into pixels, and back, by register transposition on the way: their copies cost a few per cent of
// what packing their patches did. Where it is more than that, direct_planes.cpp has another way.
#include "direct.hpp"

#include <algorithm>
#include <utility>

#include "cpu/gemm/cut.hpp"
#include "cpu/gemm/filters.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/groups.hpp"
#include "stage.hpp"

namespace fastconv::cpu::direct {
namespace {

constexpr double kMaxWindow = 1 << 20;  // cells that a dilated filter may span
constexpr int64_t kFewChannels = 4;  // that are a fraction of a vector: turned into pixels they would take a whole one

// Elements of a pixel of some channels: with a cache line more where outputs' patches would lie so far apart that few
// sets of a first-level cache had to hold them.
template <class T>
int64_t unaliased(int64_t channels, int64_t stride) {
  const int64_t line = kCacheLine / static_cast<int64_t>(sizeof(T));
  return stride * channels % (16 * line) == 0 ? channels + line : channels;
}

// The outputs of some neighbouring pixels, [pixels][nr], to y.
template <class T>
void write_tile(const T* tile, int64_t pixels, int64_t filters, T* to, const Tensor<T>& y) {
  const int64_t mr = gemm_kernels<T>().mr, nr = gemm_kernels<T>().nr, lanes = vector_lanes<T>();
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
    layout_kernels<T>().pixels_to_planes(dense ? to : planes, dense ? y.stride[1] : mr, tile + k, nr,
                                         static_cast<int>(some), pixels);
    if (!dense) layout_kernels<T>().copy_rows(to, y.stride[1], 2, planes, mr, 1, some, pixels);
  }
}

// The outputs of a block for the filters of one panel, `width` of them from k on. Long filters are cut, so that a part
// of the panel stays in the cache while all outputs pass; `sums` holds theirs so far.
template <class T>
void multiply_panel(const Stage<T>& stage, const Block& block, const T* staged, int64_t k, int64_t width,
                    const T* panel, const T* bias, bool relu, T* sums, const Tensor<T>& y) {
  const ConvShape& s = stage.s;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t mr = gemm.mr, nr = gemm.nr, columns = block.columns.size();
  const bool joined = stage.joins(block.rows.size(), columns);
  const int64_t lines = joined ? 1 : block.rows.size();
  // Even: one of one or two pixels takes as long as one of four.
  const Blocks tiles(joined ? stage.joined(block.rows.size(), columns) : columns, mr);
  const Blocks parts(static_cast<int64_t>(stage.cells.size()), gemm.k_block);
  for (int64_t part = 0; part < parts.count; ++part) {
    const Range cells = parts[part];
    const bool last = part + 1 == parts.count, in_place = last && !joined && y.stride[1] == 1 && k + width <= s.k;
    const Epilogue<T> epilogue{nullptr, last ? bias : nullptr, last && relu};
    T* sum = sums;
    for (int64_t i = 0; i < lines * tiles.count; ++i, sum += mr * nr) {
      const Range q = tiles[i % tiles.count];
      const int64_t first = i / tiles.count * stage.steps + q.begin;
      const T* patches = staged + first * stage.step;
      T* row = y.at(block.n, k) + block.z * y.stride[2] + block.columns.begin * y.stride[4];
      const auto output = [&](int64_t at) {
        return row + (block.rows.begin + at / stage.steps) * y.stride[3] + at % stage.steps * y.stride[4];
      };
      alignas(kCacheLine) T tile[kMaxTile];
      T* out = in_place ? output(first) : last ? tile : sum;
      const auto multiply = width == vector_lanes<T>() ? gemm.tile_scattered_vector : gemm.tile_scattered;
      multiply(cells.size(), patches, stage.step, stage.cells.data() + cells.begin, panel + cells.begin * width,
               part == 0 ? nullptr : sum, out, in_place ? y.stride[4] : nr, static_cast<int>(q.size()), epilogue,
               {patches, 0});
      // A row at a time, without what lies between two.
      for (int64_t at = first, end = first + q.size(); last && !in_place && at < end;) {
        const int64_t next = at / stage.steps * stage.steps + stage.steps, real = next - stage.steps + columns;
        if (at < real) {
          write_tile(tile + (at - first) * nr, std::min(end, real) - at, std::min(width, s.k - k), output(at), y);
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
  const bool planes = s.c <= kFewChannels && x.stride[4] == 1;
  const Stage<T> stage(s, planes ? s.c : unaliased<T>(s.c, s.axis[2].stride), planes);
  const Panels panels(s.k, gemm_kernels<T>().nr, vector_lanes<T>(), 0);
  const int64_t cells = s.c * s.taps();
  const std::size_t panel_bytes = array_bytes(panels.padded(), cells, sizeof(T));
  const std::size_t bias_bytes = array_bytes(panels.padded(), 1, sizeof(T));
  const Filters<T> filters(s, w, !planes);
  const std::size_t shared = panel_bytes + bias_bytes;
  const std::size_t sum_bytes = cells > gemm_kernels<T>().k_block ? stage.output_bytes() : 0;
  const std::size_t own = std::max(sum_bytes + stage.bytes(), filters.scratch_bytes(gemm_kernels<T>().nr));
  const int threads = threads_within(workspace_limit, shared, own, threads_for(s), "direct");
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  T *packed = memory.at<T>(0), *biases = memory.at<T>(panel_bytes);
  const auto scratch = [&](int slot) { return shared + static_cast<std::size_t>(slot) * own; };
  for (int64_t k = 0; k < panels.padded(); ++k) biases[k] = bias.data != nullptr && k < s.k ? bias[k] : T(0);
  parallel_for(panels.count(), threads, [&](int64_t panel, int slot) {
    filters.pack(packed + panels.first(panel) * cells, static_cast<int>(panels.width(panel)), panels.lanes(panel),
                 {0, cells}, memory.at<std::byte>(scratch(slot)));
  });
  parallel_for(stage.units(), threads, [&](int64_t unit, int slot) {
    const Block block(stage, unit);
    T *sums = memory.at<T>(scratch(slot)), *staged = memory.at<T>(scratch(slot) + sum_bytes);
    fill_stage(stage, block, x, staged);
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t k = panels.first(panel);
      multiply_panel(stage, block, staged, k, panels.width(panel), packed + k * cells, biases + k, relu, sums, y);
    }
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

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::direct
