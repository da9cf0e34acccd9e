// The weight gradient is a product over all outputs of a block for each row of filter cells, with zeros for those that
// do not exist: in the stage of stage.hpp the patches' transpose is as good as packed.
//
//   dw^T[S*C of a filter row, K] += patches^T[S*C, outputs] dy[outputs, K]
#include <algorithm>
#include <memory>

#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/walk/finite.hpp"
#include "cpu/walk/parts.hpp"
#include "jobs.hpp"
#include "stage.hpp"

namespace fastconv::cpu::direct {
namespace {

using namespace tuning::direct;

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
// gradients [joined outputs][nr]. If `joined`, some cells are multiplied by the zeros between two rows of gradients.
template <class T>
void reduce_panel(const Stage<T>& stage, const Block& block, bool joined, const T* staged, int64_t k,
                  const Tensor<const T>& dy, T* copy, T* sums) {
  const ConvShape& s = stage.s;
  const auto& [depth, height, width] = s.axis;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t mr = gemm.mr, nr = gemm.nr, rows = block.rows.size(), columns = block.columns.size();
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

// Of one group.
template <class T>
class StagedPatchesJob final : public Job {
 public:
  StagedPatchesJob(const Reduction<T>& r, std::size_t limit)
      : Job(kStagedPatches),
        s_(r.shape),
        dy_(r.dy),
        x_(r.x),
        dw_(r.dw),
        stage_(s_, s_.c),
        groups_(panels_, std::max<int64_t>(1, kSumBytes / bytes(sum_size_))),
        parts_(stage_.units(), ceil_div(stage_.units(), ceil_div(kEnoughTasks, groups_.count))) {
    sum_step_ = bytes(sum_size_) / static_cast<int64_t>(sizeof(T));
    copy_size_ = stage_.joined(stage_.row_blocks.size, stage_.column_blocks.size) * nr_;
    sums_ = scratch_.shared<T>(panels_ * parts_.count, sum_step_);
    staged_ = scratch_.each<T>(stage_.size);
    copy_ = scratch_.each<T>(copy_size_);
    scratch_.fit(limit, threads_for(s_.flops()), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    const auto sums = [&](int64_t panel, int64_t part) {
      return at(sums_) + (panel * parts_.count + part) * sum_step_;
    };
    parallel_for(groups_.count * parts_.count, scratch_.threads(), [&](int64_t task, int slot) noexcept {
      const int64_t part = task % parts_.count;
      const Range group = groups_[task / parts_.count];
      std::fill_n(at(copy_, slot), copy_size_, T(0));
      add_units(group, parts_[part], true, sums(group.begin, part), at(staged_, slot), at(copy_, slot));
    });
    parallel_for(panels_, scratch_.threads(), [&](int64_t panel, int slot) noexcept {
      T* sum = sums(panel, 0);
      sum_parts(sum, parts_.count, sum_step_, sum_size_);
      // What is not finite may have met a zero between two rows: the sums are made anew without such zeros.
      if (stage_.row_blocks.size > 1 && !all_finite(sum, sum_size_))
        add_units({panel, panel + 1}, {0, stage_.units()}, false, sum, at(staged_, slot), at(copy_, slot));
      write_panel(s_, sum, panel * nr_, dw_);
    });
  }

 private:
  static int64_t bytes(int64_t size) { return static_cast<int64_t>(array_bytes(size, 1, sizeof(T))); }

  // The sums of some panels over some blocks of outputs. If they may `join` rows, short ones are.
  void add_units(Range panels, Range units, bool join, T* sums, T* staged, T* copy) const noexcept {
    const auto panel_sums = [&](int64_t panel) { return sums + (panel - panels.begin) * parts_.count * sum_step_; };
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) std::fill_n(panel_sums(panel), sum_size_, T(0));
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      const Block block(stage_, unit);
      fill_stage(stage_, block, x_, staged);
      const bool joined = join && stage_.steps <= block.columns.size() + kSumCost;
      for (int64_t panel = panels.begin; panel < panels.end; ++panel)
        reduce_panel(stage_, block, joined, staged, panel * nr_, dy_, copy, panel_sums(panel));
    }
  }

  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
  Stage<T> stage_;
  int64_t nr_ = gemm_kernels<T>().nr, panels_ = ceil_div(s_.k, nr_);
  int64_t sum_size_ = s_.c * s_.taps() * nr_, sum_step_, copy_size_;  // step: whole cache lines
  // A task's panels share its stages. Parts of the outputs have sums of their own, where panels are too few to share
  // out.
  Blocks groups_, parts_;
  SharedArray<T> sums_;           // [panel][part][tap][C][nr]
  ThreadArray<T> staged_, copy_;  // copy: gradients, [joined outputs][nr]
};

}  // namespace

template <class T>
std::unique_ptr<const Job> staged_patches_job(const Reduction<T>& r, std::size_t limit) {
  return std::make_unique<StagedPatchesJob<T>>(r, limit);
}

template std::unique_ptr<const Job> staged_patches_job(const Reduction<float>&, std::size_t);
template std::unique_ptr<const Job> staged_patches_job(const Reduction<double>&, std::size_t);

}  // namespace fastconv::cpu::direct
