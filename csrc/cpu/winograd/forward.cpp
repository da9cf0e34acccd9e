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
// This file takes small filters and many tiles: u is made once, and each task does all there is to do for its tiles.
// Lanes are channels throughout, so a transform is the same few additions for every lane.
#include <algorithm>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "plan.hpp"
#include "schedules.hpp"

namespace fastconv::cpu::winograd {
namespace {

template <class T>
class TilesJob final : public Job {
 public:
  TilesJob(const Correlation<T>& call, std::size_t workspace_limit)
      : Job(variant_of(TileGrid(call.shape), Schedule::tiles)),
        call_(call),
        plan_(call.shape, gemm_kernels<T>().rows_mr, kStageRows * kStageColumns, scratch_) {
    scratch_.fit(workspace_limit, num_threads(), "winograd");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T *u = at(plan_.u), *bias = at(plan_.bias);
    copy_bias(call_, plan_.panels.padded(), bias);
    make_filters(plan_, call_.shape, call_.w, scratch_.threads(), u);
    parallel_for(plan_.blocks.count, scratch_.threads(), [&](int64_t block, int slot) noexcept {
      T *v = at(plan_.v, slot), *m = at(plan_.m, slot), *stage = at(plan_.stage, slot);
      const Range tiles = plan_.tiles(block);
      for_each_tile_run(plan_.grid, tiles, [&](const TileRun& run) {
        transform_inputs(call_.shape, plan_.grid, call_.x, run, stage, plan_.v_stride,
                         [&](int64_t c, int64_t t) { return v + (run.first + t) * plan_.channels + c; });
      });
      plan_.for_each_pass([&](Range panels, Range filters) {
        multiply_panels(plan_, call_.shape, tiles.size(), panels, u, v, m);
        transform_outputs(call_, plan_.grid, tiles, filters, {m, plan_.m_stride, plan_.width}, bias, stage);
      });
    });
  }

 private:
  Correlation<T> call_;
  TilesPlan<T> plan_;
};

}  // namespace

template <class T>
bool tiles_pay(const ConvShape& s) {
  return TilesPlan<T>::small_filters(s) && TileGrid(s).count >= tuning::winograd::kMinTiles;
}

template <class T>
std::unique_ptr<const Job> tiles_job(const Correlation<T>& call, std::size_t workspace_limit) {
  return std::make_unique<TilesJob<T>>(call, workspace_limit);
}

template bool tiles_pay<float>(const ConvShape&);
template bool tiles_pay<double>(const ConvShape&);
template std::unique_ptr<const Job> tiles_job(const Correlation<float>&, std::size_t);
template std::unique_ptr<const Job> tiles_job(const Correlation<double>&, std::size_t);

}  // namespace fastconv::cpu::winograd
