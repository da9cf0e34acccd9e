// Filters of one cell over channel planes of few pixels: vectors run along the filters.
//
//   y^T[pixels, K] = x^T[pixels, C] w^T[C, K]
//
// A task packs a panel of filters and passes over a part of the pixels with it. The micro-kernel reads tiles of
// neighbouring pixels where they lie, with any stride, and register transposition makes planes of its results. Vectors
// are full however few pixels a plane has; along the pixels, 49 of them would fill 64 lanes.
#include "pointwise.hpp"

#include <algorithm>
#include <memory>

#include "cpu/gemm/filters.hpp"
#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"

namespace fastconv::cpu::pointwise {
namespace {

using namespace tuning::pointwise;

// Tiles of up to `width` neighbouring outputs of a row, for all rows of the batch.
struct Tiles {
  ConvShape s;
  int64_t width, in_row, count;

  Tiles(const ConvShape& shape, int64_t width_)
      : s(shape),
        width(width_),
        in_row(ceil_div(s.axis[2].out, width)),
        count(s.n * s.axis[0].out * s.axis[1].out * in_row) {}

  struct Place {
    int64_t n, z, p;
    Range q;
  };
  Place operator[](int64_t i) const {
    const int64_t q = i % in_row * width, row = i / in_row, slice = row / s.axis[1].out;
    const Range columns{q, std::min(s.axis[2].out, q + width)};
    return {slice / s.axis[0].out, slice % s.axis[0].out, row % s.axis[1].out, columns};
  }
};

template <class T>
class FilterLanesJob final : public Job {
 public:
  FilterLanesJob(const Correlation<T>& c, std::size_t workspace_limit)
      : Job(kFilterLanes),
        s_(c.shape),
        x_(c.x),
        w_(c.w),
        finish_(c.finish),
        y_(c.y),
        filters_(s_, w_, true),
        panels_(s_.k, nr_),
        tiles_(s_, gemm_kernels<T>().mr),
        parts_(tiles_.count, std::min(near_tiles(), ceil_div(tiles_.count, ceil_div(kEnoughTasks, panels_.count)))) {
    channels_ = scratch_.shared<int32_t>(s_.c);
    if (share()) shared_panels_ = scratch_.shared<T>(panels_.count, panel_size());
    if (!share()) own_panel_ = scratch_.each<T>(panel_size());
    packing_ = scratch_.each<std::byte>(static_cast<int64_t>(filters_.scratch_bytes(nr_)));
    scratch_.fit(workspace_limit, threads_for(s_.flops()), "implicit");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    for (int64_t c = 0; c < s_.c; ++c) at(channels_)[c] = static_cast<int32_t>(c * x_.stride[1]);
    if (share())
      parallel_for(panels_.count, scratch_.threads(), [&](int64_t i, int slot) noexcept { pack(i, at, slot); });
    parallel_for(panels_.count * parts_.count, scratch_.threads(), [&](int64_t task, int slot) noexcept {
      multiply_panel(task % panels_.count, parts_[task / panels_.count], at, slot);
    });
  }

 private:
  // A panel has several tasks, so it is packed before.
  bool share() const { return parts_.count > 1; }
  int64_t panel_size() const {
    return static_cast<int64_t>(array_bytes(s_.c, nr_, sizeof(T)) / sizeof(T));  // whole cache lines
  }
  int64_t near_tiles() const {
    return std::max<int64_t>(1, kPartBytes / static_cast<int64_t>(array_bytes(s_.c, tiles_.width, sizeof(T))));
  }
  Range filters_of(int64_t i) const { return {i * nr_, std::min(s_.k, (i + 1) * nr_)}; }
  T* panel(int64_t i, const Arrays& at, int slot) const {
    return share() ? at(shared_panels_) + i * panel_size() : at(own_panel_, slot);
  }
  void pack(int64_t i, const Arrays& at, int slot) const noexcept {
    filters_.pack(panel(i, at, slot), nr_, filters_of(i), {0, s_.c}, at(packing_, slot));
  }

  // The outputs of a panel of filters for some tiles.
  void multiply_panel(int64_t i, Range tiles, const Arrays& at, int slot) const noexcept {
    const Range filters = filters_of(i);
    if (!share()) pack(i, at, slot);
    alignas(kCacheLine) T biases[kMaxWidth] = {};
    for (int64_t k = 0; k < filters.size(); ++k) biases[k] = finish_.bias_of(filters.begin + k);
    for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const bool packs_next = !share() && i + 1 < panels_.count;
      const Ahead<T> ahead = packs_next && tile < 2 ? fetch_filters((i + 1) * nr_, tile) : fetch_pixels(tile + 1);
      multiply(tiles_[tile], filters, panel(i, at, slot), biases, at(channels_), ahead);
    }
  }

  const T* pixels(const typename Tiles::Place& at) const {
    const auto& [depth, height, width] = s_.axis;
    return x_.at(at.n, 0) + depth.input(at.z, 0) * x_.stride[2] + height.input(at.p, 0) * x_.stride[3] +
           width.input(at.q.begin, 0) * x_.stride[4];
  }

  // The outputs of a tile for a panel [C][nr] of filters and their biases [nr].
  void multiply(const Tiles::Place& at, Range filters, const T* panel, const T* biases, const int32_t* channels,
                Ahead<T> ahead) const noexcept {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const auto count = static_cast<int>(at.q.size());
    T* out = y_.at(at.n, filters.begin) + at.z * y_.stride[2] + at.p * y_.stride[3] + at.q.begin;
    alignas(kCacheLine) T values[kMaxTile];
    const int64_t step = s_.axis[2].stride * x_.stride[4];
    if (step == 1) {
      gemm.tile(s_.c, pixels(at), x_.stride[1], panel, gemm.nr, nullptr, values, gemm.nr, count,
                {nullptr, biases, finish_.relu}, ahead);
    } else {
      gemm.tile_scattered(s_.c, pixels(at), step, channels, panel, nullptr, values, gemm.nr, count,
                          {nullptr, biases, finish_.relu}, ahead);
    }
    for (int64_t k = 0; k < filters.size(); k += layout.lanes) {
      layout.pixels_to_planes(out + k * y_.stride[1], y_.stride[1], values + k, gemm.nr,
                              static_cast<int>(std::min<int64_t>(layout.lanes, filters.size() - k)), count);
    }
  }

  // Of each channel, the line with the last pixel of a tile: those before it were fetched with the tile before.
  Ahead<T> fetch_pixels(int64_t tile) const {
    const typename Tiles::Place at = tiles_[std::min(tile, tiles_.count - 1)];
    return {pixels(at) + (at.q.size() - 1) * s_.axis[2].stride * x_.stride[4], x_.stride[1]};
  }
  // Half of a panel of filters, from k on.
  Ahead<T> fetch_filters(int64_t k, int64_t half) const {
    constexpr int64_t kLine = kCacheLine / sizeof(T);
    const T* filters = w_.at(k, 0);
    if (w_.stride[1] == 1) return {filters + half * s_.c * kLine, kLine};
    return {filters + half * kLine, w_.stride[1]};
  }

  const int nr_ = gemm_kernels<T>().nr;
  ConvShape s_;
  Tensor<const T> x_, w_;
  Finish<T> finish_;
  Tensor<T> y_;
  Filters<T> filters_;
  Blocks panels_;  // of nr filters
  Tiles tiles_;
  Blocks parts_;                   // of the tiles
  SharedArray<int32_t> channels_;  // from the first to each
  SharedArray<T> shared_panels_;
  ThreadArray<T> own_panel_;
  ThreadArray<std::byte> packing_;
};

}  // namespace

template <class T>
bool serves(const ConvShape& s, const Tensor<const T>& x, const Tensor<T>& y) {
  for (const Axis& a : s.axis) {
    if (a.filter > 1 || a.inner_outputs().size() < a.out) return false;
  }
  const bool planes = y.stride[4] == 1 && x.stride[1] != 1;
  const int64_t mr = gemm_kernels<T>().mr, size = sizeof(T);
  const bool whole_tiles = s.axis[2].out >= mr || s.axis[2].out == s.pixels();
  // Tiles of a fraction of a cache line read each line again and again, for every panel of filters.
  const bool near = static_cast<double>(mr * size) >= kFullLine * static_cast<double>(kCacheLine) ||
                    s.n * s.c * s.pixels() * size <= kNearBytes;
  const int64_t last = (s.c - 1) * x.stride[1];
  return planes && whole_tiles && near && s.c >= kMinChannels && s.k * s.pixels() <= kMaxOutputs * s.c &&
         last == static_cast<int32_t>(last);
}

template <class T>
void plan(const Correlation<T>& c, std::size_t workspace_limit, Jobs& jobs) {
  jobs.push_back(std::make_unique<FilterLanesJob<T>>(c, workspace_limit));
}

template bool serves(const ConvShape&, const Tensor<const float>&, const Tensor<float>&);
template bool serves(const ConvShape&, const Tensor<const double>&, const Tensor<double>&);
template void plan(const Correlation<float>&, std::size_t, Jobs&);
template void plan(const Correlation<double>&, std::size_t, Jobs&);

}  // namespace fastconv::cpu::pointwise
