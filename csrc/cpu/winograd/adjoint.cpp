// Without padding an input gradient has more cells than dy, and the tiles of dy are fewer: each adds its cells
//
//   dx += B [ sum over k of (G g G^T) * (A dy A^T) ] B^T
//
// A task is some images, whose planes of a vector of channels add up in a stage.
#include <algorithm>
#include <utility>

#include "cpu/runtime/thread_pool.hpp"
#include "plan.hpp"
#include "schedules.hpp"

namespace fastconv::cpu::winograd {
namespace {

// The cells of dx, and those beside it, that the tiles of an image's plane reach.
struct Plane {
  TileGrid grid;
  int64_t rows, columns;

  explicit Plane(const ConvShape& s)
      : grid(s),
        rows((grid.rows - 1) * grid.tile + grid.span()),
        columns((grid.columns - 1) * grid.tile + grid.span()) {}
  int64_t cells() const { return rows * columns; }
  int64_t tiles() const { return grid.rows * grid.columns; }
};

// A convolution from dy's channels to dx's.
ConvShape swapped(ConvShape s) {
  std::swap(s.c, s.k);
  return s;
}

template <class T>
class AdjointJob final : public Job {
 public:
  AdjointJob(const ConvCall<T>& call, std::size_t workspace_limit)
      : Job(variant_of(TileGrid(call.shape), Schedule::adjoint)),
        shape_(call.shape),
        swapped_(swapped(call.shape)),
        dy_(call.a),
        w_(call.b),
        dx_(call.out),
        plane_(call.shape),
        plan_(swapped_, plane_.tiles(), std::max(plane_.cells(), kStageRows * kStageColumns), scratch_) {
    std::swap(w_.stride[0], w_.stride[1]);
    scratch_.fit(workspace_limit, num_threads(), "winograd");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T* u = at(plan_.u);
    make_filters(plan_, swapped_, w_, scratch_.threads(), u);
    parallel_for(plan_.blocks.count, scratch_.threads(), [&](int64_t block, int slot) noexcept {
      T *e = at(plan_.v, slot), *m = at(plan_.m, slot), *stage = at(plan_.stage, slot);
      const Range tiles = plan_.tiles(block);
      for_each_tile_run(plan_.grid, tiles, [&](const TileRun& run) {
        transform_gradients(shape_, plan_.grid, dy_, run, stage, plan_.v_stride,
                            [&](int64_t k, int64_t t) { return e + (run.first + t) * plan_.channels + k; });
      });
      plan_.for_each_pass([&](Range panels, Range channels) {
        multiply_panels(plan_, swapped_, tiles.size(), panels, u, e, m);
        for (int64_t c = channels.begin; c < channels.end; c += lanes_) {
          for (int64_t t = 0; t < tiles.size(); t += plan_.unit) {
            add_tiles(m + t * plan_.width + c - channels.begin, stage);
            write((tiles.begin + t) / plan_.unit, c, stage);
          }
        }
      });
    });
  }

 private:
  // The plane of an image and a vector of channels: each tile's cells are added to those of its neighbours.
  void add_tiles(const T* m, T* stage) const {
    const TileGrid& grid = plane_.grid;
    const auto input_gradient = transforms<T>(grid).input_gradient;
    std::fill_n(stage, plane_.cells() * lanes_, T(0));
    for (int64_t row = 0; row < grid.rows; ++row) {
      for (int64_t column = 0; column < grid.columns; ++column, m += plan_.width) {
        T* cells = stage + (row * plane_.columns + column) * grid.tile * lanes_;
        input_gradient(cells, plane_.columns * lanes_, lanes_, m, plan_.m_stride);
      }
    }
  }

  void write(int64_t n, int64_t c, const T* stage) const {
    const auto &height = shape_.axis[1], &width = shape_.axis[2];
    const auto channels = static_cast<int>(std::min(lanes_, shape_.c - c));
    for (int64_t h = 0; h < height.in; ++h) {
      const T* pixels = stage + ((h + height.pad_begin) * plane_.columns + width.pad_begin) * lanes_;
      write_row(pixels, channels, width.in, dx_.at(n, c) + h * dx_.stride[3], dx_.stride[1], dx_.stride[4]);
    }
  }

  ConvShape shape_, swapped_;
  Tensor<const T> dy_, w_;
  Tensor<T> dx_;
  Plane plane_;
  TilesPlan<T> plan_;
  int64_t lanes_ = vector_lanes<T>();
};

}  // namespace

template <class T>
bool adjoint_pays(const ConvShape& s) {
  const Plane plane(s);
  const int64_t tile = plane.grid.tile, tiles_of_dx = ceil_div(s.axis[1].in, tile) * ceil_div(s.axis[2].in, tile);
  return TilesPlan<T>::small_filters(s) && s.n >= tuning::winograd::kMinImages &&
         plane.grid.count >= tuning::winograd::kMinAdjointTiles && plane.cells() <= tuning::winograd::kMaxStage &&
         tuning::within(plane.tiles(), tuning::winograd::kFewerTiles, tiles_of_dx);
}

template <class T>
std::unique_ptr<const Job> adjoint_job(const ConvCall<T>& call, std::size_t workspace_limit) {
  return std::make_unique<AdjointJob<T>>(call, workspace_limit);
}

template bool adjoint_pays<float>(const ConvShape&);
template bool adjoint_pays<double>(const ConvShape&);
template std::unique_ptr<const Job> adjoint_job(const ConvCall<float>&, std::size_t);
template std::unique_ptr<const Job> adjoint_job(const ConvCall<double>&, std::size_t);

}  // namespace fastconv::cpu::winograd
