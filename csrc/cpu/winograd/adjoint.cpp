// Without padding an input gradient has more cells than dy, and the tiles of dy are fewer: each adds its cells
//
//   dx += B [ sum over k of (G g G^T) * (A dy A^T) ] B^T
//
// A task is some images, whose planes of a vector of channels add up in a stage.
#include "adjoint.hpp"

#include <algorithm>
#include <utility>

#include "cpu/runtime/thread_pool.hpp"
#include "plan.hpp"

namespace fastconv::cpu::winograd {
namespace {

template <class T>
class Adjoint {
 public:
  explicit Adjoint(const ConvShape& s) : s_(s), swapped_(s), grid_(s) { std::swap(swapped_.c, swapped_.k); }

  bool serves() const {
    const int64_t tiles = ceil_div(s_.axis[1].in, grid_.tile) * ceil_div(s_.axis[2].in, grid_.tile);
    return TilesPlan<T>::small_filters(s_) && s_.n >= kMinImages && grid_.count >= kMinTiles &&
           rows() * columns() <= kMaxStage && 4 * grid_.rows * grid_.columns <= 3 * tiles;
  }

  void run(const Tensor<const T>& dy, Tensor<const T> w, const Tensor<T>& dx, std::size_t workspace_limit) const {
    const TilesPlan<T> plan(swapped_, grid_.rows * grid_.columns,
                            std::max(rows() * columns(), kStageRows * kStageColumns));
    const int threads = threads_within(workspace_limit, plan.shared, plan.thread, num_threads(), "winograd");
    const Workspace memory(plan.shared + static_cast<std::size_t>(threads) * plan.thread);
    T* u = memory.at<T>(0);
    std::swap(w.stride[0], w.stride[1]);
    make_filters(plan, swapped_, w, threads, u);
    parallel_for(plan.blocks.count, threads, [&](int64_t block, int slot) {
      const std::size_t own = plan.shared + static_cast<std::size_t>(slot) * plan.thread;
      T *e = memory.at<T>(own), *m = memory.at<T>(own + plan.m), *stage = memory.at<T>(own + plan.stage);
      const Range tiles = plan.tiles(block);
      for_each_tile_run(grid_, tiles, [&](const TileRun& run) {
        transform_gradients(s_, grid_, dy, run, stage, plan.v_stride,
                            [&](int64_t k, int64_t t) { return e + (run.first + t) * plan.channels + k; });
      });
      plan.for_each_pass([&](Range panels, Range channels) {
        multiply_panels(plan, swapped_, tiles.size(), panels, u, e, m);
        for (int64_t c = channels.begin; c < channels.end; c += lanes_) {
          for (int64_t t = 0; t < tiles.size(); t += plan.unit) {
            add_tiles(m + t * plan.width + c - channels.begin, plan.width, plan.m_stride, stage);
            write((tiles.begin + t) / plan.unit, c, stage, dx);
          }
        }
      });
    });
  }

 private:
  static constexpr int64_t kMaxStage = 1024;  // cells
  static constexpr int64_t kMinTiles = 32, kMinImages = 8;

  int64_t rows() const { return (grid_.rows - 1) * grid_.tile + grid_.span(); }
  int64_t columns() const { return (grid_.columns - 1) * grid_.tile + grid_.span(); }

  void add_tiles(const T* m, int64_t width, int64_t stride, T* stage) const {
    const auto input_gradient = transforms<T>(grid_).input_gradient;
    std::fill_n(stage, rows() * columns() * lanes_, T(0));
    for (int64_t row = 0; row < grid_.rows; ++row) {
      for (int64_t column = 0; column < grid_.columns; ++column, m += width) {
        T* cells = stage + (row * columns() + column) * grid_.tile * lanes_;
        input_gradient(cells, columns() * lanes_, lanes_, m, stride);
      }
    }
  }

  void write(int64_t n, int64_t c, const T* stage, const Tensor<T>& dx) const {
    const auto &height = s_.axis[1], &width = s_.axis[2];
    const auto channels = static_cast<int>(std::min(lanes_, s_.c - c));
    for (int64_t h = 0; h < height.in; ++h) {
      const T* pixels = stage + ((h + height.pad_begin) * columns() + width.pad_begin) * lanes_;
      write_row(pixels, channels, width.in, dx.at(n, c) + h * dx.stride[3], dx.stride[1], dx.stride[4]);
    }
  }

  const ConvShape& s_;
  ConvShape swapped_;  // a convolution from dy's channels to dx's, with the tiles of dy
  TileGrid grid_;
  int64_t lanes_ = vector_lanes<T>();
};

}  // namespace

template <class T>
bool adjoint_serves(const ConvShape& s) {
  return Adjoint<T>(s).serves();
}

template <class T>
void adjoint(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& w, const Tensor<T>& dx,
             std::size_t workspace_limit) {
  Adjoint<T>(s).run(dy, w, dx, workspace_limit);
}

template bool adjoint_serves<float>(const ConvShape&);
template bool adjoint_serves<double>(const ConvShape&);
template void adjoint(const ConvShape&, const Tensor<const float>&, const Tensor<const float>&, const Tensor<float>&,
                      std::size_t);
template void adjoint(const ConvShape&, const Tensor<const double>&, const Tensor<const double>&, const Tensor<double>&,
                      std::size_t);

}  // namespace fastconv::cpu::winograd
