// The micro-kernel of the matrix product reads the patches of neighbouring outputs in the stage of stage.hpp,
// `stride * C` apart, against packed filters:
//
//   y[outputs, K] = patches[outputs, F] w^T[F, K]
//
// Planes are turned into pixels, and back, by register transposition on the way: their copies cost a few per cent of
// what packing their patches did. Where it is more than that, planes.cpp has another way.
#include <algorithm>
#include <memory>

#include "cpu/gemm/cut.hpp"
#include "cpu/gemm/filters.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "jobs.hpp"
#include "stage.hpp"

namespace fastconv::cpu::direct {
namespace {

// Elements of a pixel of some channels: with a cache line more where outputs' patches would lie so far apart that few
// sets of a first-level cache had to hold them.
template <class T>
int64_t unaliased(int64_t channels, int64_t stride) {
  const int64_t line = kCacheLine / static_cast<int64_t>(sizeof(T));
  return stride * channels % (tuning::direct::kAliasedLines * line) == 0 ? channels + line : channels;
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

// One group: y of the filters packed in panels, block by block of the outputs.
template <class T>
class StagedJob final : public Job {
 public:
  StagedJob(const Variant& variant, const Correlation<T>& c, std::size_t limit)
      : Job(variant),
        s_(c.shape),
        x_(c.x),
        finish_(c.finish),
        y_(c.y),
        planes_(variant == kStagedPlanes),
        stage_(s_, planes_ ? s_.c : unaliased<T>(s_.c, s_.axis[2].stride), planes_),
        panels_(s_.k, gemm_kernels<T>().nr, vector_lanes<T>(), 0),
        filters_(s_, c.w, !planes_) {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    packed_ = scratch_.shared<T>(panels_.padded(), cells_);
    biases_ = scratch_.shared<T>(panels_.padded());
    // The tiles of a block, for one panel of filters.
    const int64_t tiles = stage_.row_blocks.size * ceil_div(stage_.column_blocks.size, gemm.mr);
    if (cells_ > gemm.k_block) sum_bytes_ = array_bytes(tiles, gemm.mr * gemm.nr, sizeof(T));
    own_ = scratch_.each<std::byte>(static_cast<int64_t>(
        std::max(sum_bytes_ + array_bytes(stage_.size, 1, sizeof(T)), filters_.scratch_bytes(gemm.nr))));
    scratch_.fit(limit, threads_for(s_.flops()), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T *packed = at(packed_), *biases = at(biases_);
    for (int64_t k = 0; k < panels_.padded(); ++k) biases[k] = k < s_.k ? finish_.bias_of(k) : T(0);
    parallel_for(panels_.count(), scratch_.threads(), [&](int64_t panel, int slot) noexcept {
      filters_.pack(packed + panels_.first(panel) * cells_, static_cast<int>(panels_.width(panel)),
                    panels_.lanes(panel), {0, cells_}, at(own_, slot));
    });
    parallel_for(stage_.units(), scratch_.threads(), [&](int64_t unit, int slot) noexcept {
      const Block block(stage_, unit);
      T *sums = reinterpret_cast<T*>(at(own_, slot)), *staged = reinterpret_cast<T*>(at(own_, slot) + sum_bytes_);
      fill_stage(stage_, block, x_, staged);
      for (int64_t panel = 0; panel < panels_.count(); ++panel)
        multiply_panel(block, staged, panel, packed, biases, sums);
    });
  }

 private:
  // The outputs of a block for the filters of one panel. Long filters are cut, so that a part of the panel stays in the
  // cache while all outputs pass; `sums` holds theirs so far.
  void multiply_panel(const Block& block, const T* staged, int64_t number, const T* packed, const T* biases,
                      T* sums) const noexcept {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const int64_t mr = gemm.mr, nr = gemm.nr, columns = block.columns.size();
    const int64_t k = panels_.first(number), width = panels_.width(number);
    const T* panel = packed + k * cells_;
    const bool joined = stage_.joins(block.rows.size(), columns);
    const int64_t lines = joined ? 1 : block.rows.size();
    // Even: one of one or two pixels takes as long as one of four.
    const Blocks tiles(joined ? stage_.joined(block.rows.size(), columns) : columns, mr);
    const Blocks parts(cells_, gemm.k_block);
    for (int64_t part = 0; part < parts.count; ++part) {
      const Range cells = parts[part];
      const bool last = part + 1 == parts.count, in_place = last && !joined && y_.stride[1] == 1 && k + width <= s_.k;
      const Epilogue<T> epilogue{nullptr, last ? biases + k : nullptr, last && finish_.relu};
      T* sum = sums;
      for (int64_t i = 0; i < lines * tiles.count; ++i, sum += mr * nr) {
        const Range q = tiles[i % tiles.count];
        const int64_t first = i / tiles.count * stage_.steps + q.begin;
        const T* patches = staged + first * stage_.step;
        alignas(kCacheLine) T tile[kMaxTile];
        T* out = in_place ? output(block, k, first) : last ? tile : sum;
        const auto multiply = width == vector_lanes<T>() ? gemm.tile_scattered_vector : gemm.tile_scattered;
        multiply(cells.size(), patches, stage_.step, stage_.cells.data() + cells.begin, panel + cells.begin * width,
                 part == 0 ? nullptr : sum, out, in_place ? y_.stride[4] : nr, static_cast<int>(q.size()), epilogue,
                 {patches, 0});
        // A row at a time, without what lies between two.
        for (int64_t at = first, end = first + q.size(); last && !in_place && at < end;) {
          const int64_t next = at / stage_.steps * stage_.steps + stage_.steps, real = next - stage_.steps + columns;
          if (at < real) {
            write_tile(tile + (at - first) * nr, std::min(end, real) - at, std::min(width, s_.k - k),
                       output(block, k, at), y_);
          }
          at = next;
        }
      }
    }
  }

  // Where the output of filter k goes that is so many steps of the stage behind the first of a block.
  T* output(const Block& block, int64_t k, int64_t at) const {
    return y_.at(block.n, k) + block.z * y_.stride[2] + (block.rows.begin + at / stage_.steps) * y_.stride[3] +
           (block.columns.begin + at % stage_.steps) * y_.stride[4];
  }

  ConvShape s_;
  Tensor<const T> x_;
  Finish<T> finish_;
  Tensor<T> y_;
  bool planes_;
  Stage<T> stage_;
  Panels panels_;  // of filters
  Filters<T> filters_;
  int64_t cells_ = s_.c * s_.taps();  // of a filter
  std::size_t sum_bytes_ = 0;
  SharedArray<T> packed_, biases_;  // [panels][cells][width], [K]
  ThreadArray<std::byte> own_;      // sums, then the stage; while filters are packed, what that needs
};

}  // namespace

template <class T>
std::unique_ptr<const Job> staged_job(const Variant& variant, const Correlation<T>& c, std::size_t limit) {
  return std::make_unique<StagedJob<T>>(variant, c, limit);
}

template std::unique_ptr<const Job> staged_job(const Variant&, const Correlation<float>&, std::size_t);
template std::unique_ptr<const Job> staged_job(const Variant&, const Correlation<double>&, std::size_t);

}  // namespace fastconv::cpu::direct
