// Large filters, or few tiles: u, which would be written to memory and read back, never exists. For a block of tiles
// whose v all threads share, each task transforms the filters of one panel, some channels at a time, and multiplies
// them at once. forward.cpp has the letters.
//
//   v[element][some channels][tile][kRowPitch]   of all threads
//   u[element][channel][nr], m[element][tile][nr]   of each task
//
// As many channels of v lie side by side, since all tasks stream them from the last-level cache, and always so far
// apart.
#include <algorithm>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "plan.hpp"
#include "schedules.hpp"

namespace fastconv::cpu::winograd {
namespace {

template <class T>
struct FiltersPlan {
  static constexpr int64_t kChannels = kRowPitch;  // of u
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t lanes = vector_lanes<T>();
  TileGrid grid;
  int64_t channels, panels;
  Blocks blocks;  // of tiles
  int64_t v_stride, u_stride, m_stride;
  SharedArray<T> v, bias;
  ThreadArray<T> u, m, stage;

  FiltersPlan(const ConvShape& s, Scratch& scratch)
      : grid(s),
        channels(ceil_div(s.c, kChannels) * kChannels),
        panels(ceil_div(s.k, static_cast<int64_t>(gemm.nr))),
        blocks(grid.count,
               std::min(tuning::winograd::kSharedInputs / channels, tuning::winograd::kTaskProducts / gemm.nr) /
                   (grid.elements() * static_cast<int64_t>(sizeof(T)))) {
    const int64_t line = static_cast<int64_t>(kCacheLine / sizeof(T));
    v_stride = blocks.size * channels + line;
    u_stride = kChannels * gemm.nr + line;
    m_stride = blocks.size * gemm.nr + line;
    v = scratch.shared<T>(grid.elements(), v_stride);
    bias = scratch.shared<T>(panels * gemm.nr);
    u = scratch.each<T>(grid.elements(), u_stride);
    m = scratch.each<T>(grid.elements(), m_stride);
    stage = scratch.each<T>(kStageRows * kStageColumns, lanes);
  }
  int64_t at(int64_t tile, int64_t c) const { return (c / kChannels * blocks.size + tile) * kChannels + c % kChannels; }
};

template <class T>
class FiltersJob final : public Job {
 public:
  FiltersJob(const Correlation<T>& call, std::size_t workspace_limit)
      : Job(variant_of(TileGrid(call.shape), Schedule::filters)), call_(call), plan_(call.shape, scratch_) {
    scratch_.fit(workspace_limit, num_threads(), "winograd");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    copy_bias(call_, plan_.panels * plan_.gemm.nr, at(plan_.bias));
    for (int64_t block = 0; block < plan_.blocks.count; ++block) {
      const Range tiles = plan_.blocks[block];
      transform_block(tiles, at);
      parallel_for(plan_.panels, scratch_.threads(),
                   [&](int64_t panel, int slot) noexcept { multiply_panel(tiles, panel, at, slot); });
    }
  }

 private:
  // v of a block of tiles.
  void transform_block(Range tiles, const Arrays& at) const {
    const Tensor<const T>& x = call_.x;
    T* v = at(plan_.v);
    parallel_for(ceil_div(call_.shape.c, plan_.lanes), scratch_.threads(), [&](int64_t vector, int slot) noexcept {
      const int64_t first = vector * plan_.lanes;
      ConvShape part = call_.shape;
      part.c = std::min(plan_.lanes, part.c - first);
      for_each_tile_run(plan_.grid, tiles, [&](const TileRun& run) {
        transform_inputs(part, plan_.grid, {x.at(0, first), x.stride}, run, at(plan_.stage, slot), plan_.v_stride,
                         [&](int64_t, int64_t t) { return v + plan_.at(run.first + t, first); });
      });
    });
  }

  // y of a block of tiles and the filters of one panel.
  void multiply_panel(Range tiles, int64_t panel, const Arrays& at, int slot) const {
    const ConvShape& s = call_.shape;
    const int64_t nr = plan_.gemm.nr, first = panel * nr;
    T *u = at(plan_.u, slot), *m = at(plan_.m, slot);
    for (int64_t c = 0; c < s.c; c += plan_.kChannels) {
      const Range channels{c, std::min(s.c, c + plan_.kChannels)};
      transform_filters(s, plan_.grid, call_.w, first, nr, channels, u, plan_.u_stride);
      multiply_channels(tiles.size(), channels, at(plan_.v), u, m);
    }
    transform_outputs(call_, plan_.grid, tiles, {first, first + nr}, {m, plan_.m_stride, nr}, at(plan_.bias),
                      at(plan_.stage, slot));
  }

  // m += v u over some channels, or = for the first ones.
  void multiply_channels(int64_t tiles, Range channels, const T* v, const T* u, T* m) const {
    const int64_t nr = plan_.gemm.nr;
    const Blocks rows(tiles, plan_.gemm.mr);
    for (int64_t e = 0; e < plan_.grid.elements(); ++e) {
      for (int64_t block = 0; block < rows.count; ++block) {
        const Range row = rows[block];
        const T* a = v + e * plan_.v_stride + plan_.at(row.begin, channels.begin);
        T* out = m + e * plan_.m_stride + row.begin * nr;
        plan_.gemm.tile_pitched(channels.size(), a, kRowPitch, u + e * plan_.u_stride, nr,
                                channels.begin == 0 ? nullptr : out, out, nr, static_cast<int>(row.size()), {},
                                {a + rows.size * kRowPitch, rows.size});
      }
    }
  }

  Correlation<T> call_;
  FiltersPlan<T> plan_;
};

}  // namespace

template <class T>
std::unique_ptr<const Job> filters_job(const Correlation<T>& call, std::size_t workspace_limit) {
  return std::make_unique<FiltersJob<T>>(call, workspace_limit);
}

template std::unique_ptr<const Job> filters_job(const Correlation<float>&, std::size_t);
template std::unique_ptr<const Job> filters_job(const Correlation<double>&, std::size_t);

}  // namespace fastconv::cpu::winograd
