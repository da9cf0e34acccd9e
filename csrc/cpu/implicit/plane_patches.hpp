// The patches of images in channel planes as an operand of a product: im2col while packing.
//
// The rows of x that some panels read are copied to a stage first, a few channels at a time, with their padding and
// their columns by phases of the stride:
//
//   stage[C][row][depth tap][phase][column]
//
// A tap of neighbouring outputs is a run there, whatever stride and padding, and a row of a panel is some vectors
// copied without a mask.
#pragma once

#include <algorithm>
#include <array>
#include <new>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/patches.hpp"

namespace fastconv::cpu::implicit {

// Lanes are pixels, terms are (c, t, r, s).
template <class T>
class PlanePatches final : public Operand<T> {
 public:
  PlanePatches(const ConvShape& shape, const Tensor<const T>& x)
      : shape_(shape), x_(x), rows_of_pixels_(shape.pointwise() && spatial_stride(x, in_extents(shape)) == 1) {}

  std::size_t scratch_bytes(int width) const override {
    const Stage stage(shape_, width);
    if (!stage.reachable) throw std::bad_alloc();
    return stage.bytes() + stage.row_bytes() + run_bytes(width) + array_bytes(shape_.taps(), 1, sizeof(int32_t));
  }

  void pack(T* panels, int width, Range lanes, Range terms, std::byte* scratch) const noexcept override {
    if (const Strided<T> pixels = in_place(lanes); pixels.data != nullptr) {
      return layout_kernels<T>().pack_lanes(panels, width, pixels.data + terms.begin * pixels.term_stride,
                                            pixels.term_stride, lanes.size(), terms.size());
    }
    const Stage stage(shape_, width);
    const int64_t some = kPanels * width;
    for (int64_t first = lanes.begin; first < lanes.end; first += some, panels += some * terms.size())
      pack_some(panels, width, {first, std::min(lanes.end, first + some)}, terms, stage, scratch);
  }

  // Of a pointwise convolution, pixels of one image in a row.
  Strided<T> in_place(Range lanes) const noexcept override {
    const int64_t n = lanes.begin / shape_.pixels(), pixel = lanes.begin % shape_.pixels();
    if (!rows_of_pixels_ || pixel + lanes.size() > shape_.pixels()) return {};
    return {x_.data + n * x_.stride[0] + pixel, 1, x_.stride[1]};
  }

 private:
  static constexpr int64_t kPanels = tuning::implicit::kStagePanels;
  static constexpr int64_t kStageBytes = tuning::implicit::kStageBytes;

  // A row of the stage: input row h, from what output q reads on.
  struct Row {
    int64_t n, z, h, q;
  };

  struct Stage {
    bool whole_rows;        // or, of long ones, the outputs of each line alone
    bool shared;            // rows that outputs above each other read
    bool reachable;         // by 32-bit offsets; if so, a stage for narrower panels is too
    bool by_phases;         // or a copy for each tap, where these are farther apart than outputs are many
    int64_t phases, pitch;  // elements of a phase, whole vectors
    int64_t row, rows;      // elements of a row, the most rows
    int64_t channels;       // at a time

    Stage(const ConvShape& s, int width) {
      const auto& [d, h, w] = s.axis;
      const int64_t lanes = vector_lanes<T>(), most = kPanels * width;
      whole_rows = w.out <= most;
      shared = whole_rows && h.dilation == 1 && h.stride <= h.filter;
      const int64_t outputs = std::min(w.out, most), overlap = (w.window() - 1) / w.stride;
      phases = std::min(w.stride, w.window());
      const int64_t by_taps = w.filter * outputs;
      by_phases = std::max(phases, overlap) <= by_taps && phases * (outputs + overlap) <= by_taps;
      if (!by_phases) phases = w.filter;
      pitch = ceil_div(by_phases ? outputs + overlap : outputs, lanes) * lanes;
      const int64_t lines = (most - 2) / w.out + 2;
      row = d.filter * phases * pitch;
      rows = lines * h.filter;
      reachable = pitch <= INT32_MAX / phases / d.filter && row <= INT32_MAX / rows;
      channels = reachable ? std::max<int64_t>(1, kStageBytes / static_cast<int64_t>(sizeof(T)) / (row * rows)) : 1;
    }
    // Where a tap (t, r, s) of the first output begins.
    int64_t tap(const ConvShape& s, int64_t tap) const {
      const auto& [d, h, w] = s.axis;
      const int64_t t = tap / w.filter / h.filter, r = tap / w.filter % h.filter, f = tap % w.filter;
      const int64_t column = by_phases ? f * w.dilation % w.stride * pitch + f * w.dilation / w.stride : f * pitch;
      return r * row + t * phases * pitch + column;
    }
    // With what vectors read beyond the last column; no less for wider panels.
    std::size_t bytes() const {
      const int64_t most = std::max(row * rows, kStageBytes / static_cast<int64_t>(sizeof(T)));
      return array_bytes(most + vector_lanes<T>(), 1, sizeof(T));
    }
    std::size_t row_bytes() const { return array_bytes(rows, 1, sizeof(Row)); }
  };

  static std::size_t run_bytes(int width) { return array_bytes(kPanels * width, 1, sizeof(StagedRun)); }

  void pack_some(T* panels, int width, Range lanes, Range terms, const Stage& stage,
                 std::byte* scratch) const noexcept {
    auto* staged = reinterpret_cast<T*>(scratch);
    auto* rows = reinterpret_cast<Row*>(scratch += stage.bytes());
    auto* runs = reinterpret_cast<StagedRun*>(scratch += stage.row_bytes());
    auto* offsets = reinterpret_cast<int32_t*>(scratch += run_bytes(width));
    const int64_t taps = shape_.taps();
    for (int64_t tap = 0; tap < taps; ++tap) offsets[tap] = static_cast<int32_t>(stage.tap(shape_, tap));
    std::array<int, kPanels + 1> runs_before{};  // each panel
    const int64_t row_count = find_rows(stage, width, lanes, rows, runs, runs_before.data());
    for (int64_t at = terms.begin, next = 0; at < terms.end; at = next) {
      const int64_t c = at / taps;
      next = std::min(terms.end, (c + stage.channels) * taps);
      fill(stage, rows, row_count, {c, ceil_div(next, taps)}, staged);
      for (int64_t i = 0; i * width < lanes.size(); ++i) {
        const int first = runs_before[static_cast<std::size_t>(i)];
        layout_kernels<T>().pack_runs(panels + (i * terms.size() + at - terms.begin) * width, width, staged,
                                      row_count * stage.row, offsets, static_cast<int>(taps), at - c * taps,
                                      next - c * taps, runs + first,
                                      runs_before[static_cast<std::size_t>(i + 1)] - first);
      }
    }
  }

  // The rows that some lanes read, their number returned, and the runs of their panels.
  int64_t find_rows(const Stage& stage, int width, Range lanes, Row* rows, StagedRun* runs, int* runs_before) const {
    const auto& [depth, height, columns] = shape_.axis;
    int run_count = 0;
    int64_t row_count = 0, first_row = 0, next_z = 0, next_p = -1;
    const auto line = [&](int64_t lane, int64_t nz, int64_t p, Range q) {
      first_row = stage.shared && nz == next_z && p == next_p ? first_row + height.stride : row_count;
      next_z = nz;
      next_p = p + 1;
      const int64_t origin = stage.whole_rows ? 0 : q.begin;
      for (; row_count < first_row + height.filter; ++row_count)
        rows[row_count] = {nz / depth.out, nz % depth.out, height.input(p, row_count - first_row), origin};
      const int64_t source = first_row * stage.row + q.begin - lane - origin;  // of lane 0 of the first panel
      for (int64_t end = lane + q.size(), next = 0; lane < end; lane = next) {
        const int64_t panel = lane / width;
        next = std::min(end, (panel + 1) * width);
        runs[run_count++] = {static_cast<int32_t>(source + panel * width), static_cast<int32_t>(lane % width),
                             static_cast<int32_t>(next - panel * width)};
        runs_before[panel + 1] = run_count;
      }
    };
    for_each_run({shape_.n * depth.out, height.out, columns.out}, lanes, line);
    return row_count;
  }

  void fill(const Stage& stage, const Row* rows, int64_t row_count, Range channels, T* staged) const {
    const auto& [depth, height, width] = shape_.axis;
    for (int64_t phase = 0; phase < stage.phases; ++phase) {
      const int64_t shift = stage.by_phases ? phase : phase * width.dilation;
      int64_t q = -1, first = 0;
      Range real{0, 0};
      for (int64_t i = 0; i < row_count; ++i) {
        const Row& row = rows[i];
        if (row.q != q) {
          q = row.q;
          first = width.input(q, 0) + shift;
          real = real_cells(width, first, stage.pitch);
        }
        for (int64_t t = 0; t < depth.filter; ++t) {
          const int64_t d = depth.input(row.z, t);
          const bool inside = depth.inside(d) && height.inside(row.h);
          layout_kernels<T>().copy_padded(
              staged + i * stage.row + (t * stage.phases + phase) * stage.pitch, row_count * stage.row, stage.pitch,
              x_.at(row.n, channels.begin) + d * x_.stride[2] + row.h * x_.stride[3] + first * x_.stride[4],
              x_.stride[1], width.stride * x_.stride[4], real.begin, inside ? real.end : real.begin, channels.size(),
              phase == 0 ? channels.size() * x_.stride[1] : 0);
        }
      }
    }
  }

  ConvShape shape_;
  Tensor<const T> x_;
  bool rows_of_pixels_;  // the patches are x's planes
};

}  // namespace fastconv::cpu::implicit
