// The weight gradient is a product over all outputs of a block for each row of filter cells, with zeros for those that
// do not exist: in the stage of direct_stage.hpp the patches' transpose is as good as packed.
//
//   dw^T[S*C of a filter row, K] += patches^T[S*C, outputs] dy[outputs, K]
#include "direct.hpp"

#include <algorithm>

#include "cpu/gemm/filters.hpp"
#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/groups.hpp"
#include "stage.hpp"

namespace fastconv::cpu::direct {
namespace {

constexpr int64_t kSumBytes = 1 << 20;  // of gradients that stay near while a task's outputs pass
constexpr int64_t kSumCost = 4;         // outputs that take as long as a tile's sums in and out

// [count][nr] of dy's pixels of a row, for some filters.
template <class T>
void copy_gradients(const T* row, const Tensor<const T>& dy, int64_t filters, int64_t count, T* copy) {
  const int64_t nr = gemm_kernels<T>().nr, lanes = vector_lanes<T>();
  if (dy.stride[4] == 1) {
    for (int64_t k = 0; k < filters; k += lanes) {
      layout_kernels<T>().planes_to_pixels(copy + k, nr, row + k * dy.stride[1], dy.stride[1],
                                           static_cast<int>(std::min(lanes, filters - k)), count);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (dy.stride[1] == 1) {
      std::copy_n(row + i * dy.stride[4], filters, copy + i * nr);
      continue;
    }
    for (int64_t k = 0; k < filters; ++k) copy[i * nr + k] = row[i * dy.stride[4] + k * dy.stride[1]];
  }
}

// sums[tap][C][nr] += the products of a block's patches and gradients, for the filters of a panel; `copy` holds the
// gradients [joined outputs][nr].
template <class T>
void reduce_panel(const Stage<T>& stage, const Block& block, const T* staged, int64_t k, const Tensor<const T>& dy,
                  T* copy, T* sums) {
  const ConvShape& s = stage.s;
  const auto& [depth, height, width] = s.axis;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t mr = gemm.mr, nr = gemm.nr, rows = block.rows.size(), columns = block.columns.size();
  const bool joined = stage.steps <= columns + kSumCost;
  const int64_t lines = joined ? 1 : rows, outputs = joined ? stage.joined(rows, columns) : columns;
  for (int64_t p = 0; p < rows; ++p) {
    const T* gradient = dy.at(block.n, k) + block.z * dy.stride[2] + (block.rows.begin + p) * dy.stride[3] +
                        block.columns.begin * dy.stride[4];
    copy_gradients(gradient, dy, std::min(nr, s.k - k), columns, copy + p * stage.steps * nr);
    if (p + 1 < rows) std::fill_n(copy + (p * stage.steps + columns) * nr, (stage.steps - columns) * nr, T(0));
  }
  const auto tile = s.k - k <= vector_lanes<T>() ? gemm.tile_vector : gemm.tile;  // half of the panel is empty
  const bool one_run = width.dilation == 1;                                       // the cells of a filter row
  const int64_t runs = one_run ? 1 : width.filter, length = one_run ? width.filter * s.c : s.c;
  for (int64_t p = 0; p < lines; ++p) {
    const T* gradients = copy + p * stage.steps * nr;
    T* sum = sums;
    for (int64_t row = 0; row < depth.filter * height.filter; ++row) {
      const int64_t line = row / height.filter * stage.rows + stage.line(row % height.filter * height.dilation) + p;
      for (int64_t run = 0; run < runs; ++run) {
        const T* cells = staged + line * stage.row + run * width.dilation * s.c;
        for (int64_t cell = 0; cell < length; cell += mr) {
          const auto some = static_cast<int>(std::min(mr, length - cell));
          tile(outputs, cells + cell, stage.step, gradients, nr, sum, sum, nr, some, {}, {cells, 0});
          sum += some * nr;
        }
      }
    }
  }
}

// dw[nr filters from k on] from sums[tap][C][nr].
template <class T>
void write_panel(const ConvShape& s, const T* sums, int64_t k, const Tensor<T>& dw) {
  const int64_t nr = gemm_kernels<T>().nr, lanes = vector_lanes<T>(), filters = std::min(nr, s.k - k);
  const bool joined = spatial_stride(dw, filter_extents(s)) == 1;
  for (int64_t c = 0; c < s.c; ++c) {
    const T* sum = sums + c * nr;
    for (int64_t first = 0; joined && first < filters; first += lanes) {
      layout_kernels<T>().pixels_to_planes(dw.at(k + first, c), dw.stride[0], sum + first, s.c * nr,
                                           static_cast<int>(std::min(lanes, filters - first)), s.taps());
    }
    for (int64_t i = 0; !joined && i < filters; ++i) {
      for_each_cell(dw, k + i, c, filter_extents(s), {0, s.taps()},
                    [&](T& gradient, int64_t tap) { gradient = sum[tap * s.c * nr + i]; });
    }
  }
}

// One group.
template <class T>
void reduce(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
            std::size_t workspace_limit) {
  if (planes_serve_reduction(s, x, dy)) return reduce_planes(s, dy, x, dw, workspace_limit);
  const Stage<T> stage(s, s.c);
  const int64_t nr = gemm_kernels<T>().nr, panels = ceil_div(s.k, nr), cells = s.c * s.taps();
  const std::size_t sum_bytes = array_bytes(cells, nr, sizeof(T));
  // A task's panels share its stages. Parts of the outputs have sums of their own, where panels are too few to share
  // out.
  const Blocks groups(panels, std::max<int64_t>(1, kSumBytes / static_cast<int64_t>(sum_bytes)));
  const Blocks parts(stage.units(), ceil_div(stage.units(), ceil_div(kEnoughTasks, groups.count)));
  const std::size_t shared = static_cast<std::size_t>(panels * parts.count) * sum_bytes;
  const std::size_t copy_bytes =
      array_bytes(stage.joined(stage.row_blocks.size, stage.column_blocks.size), nr, sizeof(T));
  const std::size_t own = stage.bytes() + copy_bytes;
  const int threads = threads_within(workspace_limit, shared, own, threads_for(s), "direct");
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  const auto sums = [&](int64_t panel, int64_t part) {
    return memory.at<T>(static_cast<std::size_t>(panel * parts.count + part) * sum_bytes);
  };
  parallel_for(groups.count * parts.count, threads, [&](int64_t task, int slot) {
    const std::size_t at = shared + static_cast<std::size_t>(slot) * own;
    T *staged = memory.at<T>(at), *copy = memory.at<T>(at + stage.bytes());
    const int64_t part = task % parts.count;
    const Range group = groups[task / parts.count], units = parts[part];
    for (int64_t panel = group.begin; panel < group.end; ++panel) std::fill_n(sums(panel, part), cells * nr, T(0));
    std::fill_n(copy, copy_bytes / sizeof(T), T(0));
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      const Block block(stage, unit);
      fill_stage(stage, block, x, staged);
      for (int64_t panel = group.begin; panel < group.end; ++panel)
        reduce_panel(stage, block, staged, panel * nr, dy, copy, sums(panel, part));
    }
  });
  parallel_for(panels, threads, [&](int64_t panel, int) {
    T* sum = sums(panel, 0);
    for (int64_t part = 1; part < parts.count; ++part) {
      const T* other = sums(panel, part);
      for (int64_t i = 0; i < cells * nr; ++i) sum[i] += other[i];
    }
    write_panel(s, sum, panel * nr, dw);
  });
}

}  // namespace

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  for_each_group(s, x, dw, dy, [&](const ConvShape& group, const auto& xg, const auto& dwg, const auto& dyg, int64_t) {
    reduce(group, dyg, xg, dwg, workspace_limit);
  });
}

#define FASTCONV_INSTANTIATE(T) \
  template void wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::direct
