// Filters of one cell over channel planes of few pixels: vectors run along the filters.
//
//   y^T[pixels, K] = x^T[pixels, C] w^T[C, K]
//
// A task packs a panel of filters and passes over a part of the pixels with it. The micro-kernel reads tiles of
// neighbouring pixels where they lie, with any stride, and register transposition makes planes of its results. Vectors
// are full however few pixels a plane has; along the pixels, 49 of them would fill 64 lanes.
#include "pointwise.hpp"

#include <algorithm>

#include "cpu/gemm/gemm.hpp"
#include "cpu/gemm/operands.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"

namespace fastconv::cpu::pointwise {
namespace {

constexpr int64_t kMinChannels = 64, kMaxOutputs = 384;  // of an image, per channel: more cost too much to turn
constexpr int64_t kNearBytes = 512 << 10;  // of pixels near enough to be read a fraction of a line at a time
constexpr int64_t kPartBytes = 1 << 20;    // of pixels that stay in a second-level cache while all filters pass

// Tiles of up to `width` neighbouring outputs of a row, for all rows of the batch.
struct Tiles {
  const ConvShape& s;
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

// What all tasks share.
template <class T>
struct Convolution {
  const ConvShape& s;
  const Tensor<const T>& x;
  const Tensor<const T>& w;
  bool relu;
  const Tensor<T>& y;
  const int32_t* channels;  // from the first to each
  Tiles tiles;

  const T* pixels(const Tiles::Place& at) const {
    const auto& [depth, height, width] = s.axis;
    return x.at(at.n, 0) + depth.input(at.z, 0) * x.stride[2] + height.input(at.p, 0) * x.stride[3] +
           width.input(at.q.begin, 0) * x.stride[4];
  }

  // The outputs of a tile for a panel [C][nr] of filters and their biases [nr].
  void multiply(const Tiles::Place& at, Range filters, const T* panel, const T* biases, Ahead<T> ahead) const {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const auto count = static_cast<int>(at.q.size());
    T* out = y.at(at.n, filters.begin) + at.z * y.stride[2] + at.p * y.stride[3] + at.q.begin;
    alignas(kCacheLine) T values[kMaxTile];
    const int64_t step = s.axis[2].stride * x.stride[4];
    if (step == 1) {
      gemm.tile(s.c, pixels(at), x.stride[1], panel, gemm.nr, nullptr, values, gemm.nr, count, {nullptr, biases, relu},
                ahead);
    } else {
      gemm.tile_scattered(s.c, pixels(at), step, channels, panel, nullptr, values, gemm.nr, count,
                          {nullptr, biases, relu}, ahead);
    }
    for (int64_t k = 0; k < filters.size(); k += layout.lanes) {
      layout.pixels_to_planes(out + k * y.stride[1], y.stride[1], values + k, gemm.nr,
                              static_cast<int>(std::min<int64_t>(layout.lanes, filters.size() - k)), count);
    }
  }

  // Of each channel, the line with the last pixel of a tile: those before it were fetched with the tile before.
  Ahead<T> fetch_pixels(int64_t tile) const {
    const Tiles::Place at = tiles[std::min(tile, tiles.count - 1)];
    return {pixels(at) + (at.q.size() - 1) * s.axis[2].stride * x.stride[4], x.stride[1]};
  }
  // Half of a panel of filters, from k on.
  Ahead<T> fetch_filters(int64_t k, int64_t half) const {
    constexpr int64_t kLine = kCacheLine / sizeof(T);
    const T* filters = w.at(k, 0);
    if (w.stride[1] == 1) return {filters + half * s.c * kLine, kLine};
    return {filters + half * kLine, w.stride[1]};
  }
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
  const bool near =
      4 * mr * size >= 3 * static_cast<int64_t>(kCacheLine) || s.n * s.c * s.pixels() * size <= kNearBytes;
  const int64_t last = (s.c - 1) * x.stride[1];
  return planes && whole_tiles && near && s.c >= kMinChannels && s.k * s.pixels() <= kMaxOutputs * s.c &&
         last == static_cast<int32_t>(last);
}

template <class T>
void correlate(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w, const Vector<const T>& bias,
               bool relu, const Tensor<T>& y, std::size_t workspace_limit) {
  const int nr = gemm_kernels<T>().nr;
  const int64_t panels = ceil_div(s.k, static_cast<int64_t>(nr));
  const Tiles tiles(s, gemm_kernels<T>().mr);
  const int64_t near =
      std::max<int64_t>(1, kPartBytes / static_cast<int64_t>(array_bytes(s.c, tiles.width, sizeof(T))));
  const Blocks parts(tiles.count, std::min(near, ceil_div(tiles.count, ceil_div(kEnoughTasks, panels))));
  const bool share = parts.count > 1;  // a panel has several tasks, so it is packed before
  const Filters<T> filters(s, w, true);
  // The workspace: where the channels begin, all panels or one for each thread, and what packing needs.
  const std::size_t channel_bytes = array_bytes(s.c, 1, sizeof(int32_t)), panel_bytes = array_bytes(s.c, nr, sizeof(T));
  const std::size_t shared = channel_bytes + (share ? static_cast<std::size_t>(panels) * panel_bytes : 0);
  const std::size_t own = filters.scratch_bytes(nr) + (share ? 0 : panel_bytes);
  int threads = threads_within(workspace_limit, shared, own, num_threads(), "implicit");
  if (s.flops() < kSerialFlops) threads = 1;
  const Workspace memory(shared + static_cast<std::size_t>(threads) * own);
  auto* channels = memory.at<int32_t>(0);
  for (int64_t c = 0; c < s.c; ++c) channels[c] = static_cast<int32_t>(c * x.stride[1]);

  const auto filters_of = [&](int64_t i) { return Range{i * nr, std::min(s.k, (i + 1) * nr)}; };
  const auto thread = [&](int slot) { return shared + static_cast<std::size_t>(slot) * own; };
  const auto panel = [&](int64_t i, int slot) {
    return memory.at<T>(share ? channel_bytes + static_cast<std::size_t>(i) * panel_bytes : thread(slot));
  };
  const auto pack = [&](int64_t i, int slot) {
    auto* scratch = memory.at<std::byte>(thread(slot) + (share ? 0 : panel_bytes));
    filters.pack(panel(i, slot), nr, filters_of(i), {0, s.c}, scratch);
  };
  if (share) parallel_for(panels, threads, pack);
  const Convolution<T> convolution{s, x, w, relu, y, channels, tiles};
  parallel_for(panels * parts.count, threads, [&](int64_t task, int slot) {
    const int64_t i = task % panels;
    const Range some = parts[task / panels], group = filters_of(i);
    if (!share) pack(i, slot);
    alignas(kCacheLine) T biases[kMaxWidth] = {};
    for (int64_t k = 0; bias.data != nullptr && k < group.size(); ++k) biases[k] = bias[group.begin + k];
    for (int64_t tile = some.begin; tile < some.end; ++tile) {
      const bool packs_next = !share && i + 1 < panels;
      const Ahead<T> ahead =
          packs_next && tile < 2 ? convolution.fetch_filters((i + 1) * nr, tile) : convolution.fetch_pixels(tile + 1);
      convolution.multiply(tiles[tile], group, panel(i, slot), biases, ahead);
    }
  });
}

#define FASTCONV_INSTANTIATE(T)                                                                                     \
  template bool serves(const ConvShape&, const Tensor<const T>&, const Tensor<T>&);                                 \
  template void correlate(const ConvShape&, const Tensor<const T>&, const Tensor<const T>&, const Vector<const T>&, \
                          bool, const Tensor<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::pointwise
