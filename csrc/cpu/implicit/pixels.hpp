// Patches and gradients as operands of a product that pack themselves.
//
// Filter cells are walked as (c, tap) where x lies in channel planes, so that a tap is a run of a row, and as (tap, c)
// where channels are contiguous, so that a pixel is one.
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "cpu/walk/taps.hpp"

namespace fastconv::cpu::implicit {

// A run of lanes: neighbouring pixels of one output row.
struct Run {
  int64_t n, z, p, q;
  int begin, end;
};

// Cuts up to `width` consecutive pixels into runs; returns their number.
inline int make_runs(const ConvShape& s, Range pixels, Run* runs) {
  int count = 0;
  const Extents rows{s.n * s.axis[0].out, s.axis[1].out, s.axis[2].out};  // images are more depth
  for_each_run(rows, pixels, [&](int64_t offset, int64_t nz, int64_t p, Range q) {
    const auto begin = static_cast<int>(offset);
    const bool flat = s.axis[0].out == 1;
    runs[count++] = {flat ? nz : nz / s.axis[0].out,    flat ? 0 : nz % s.axis[0].out, p, q.begin, begin,
                     begin + static_cast<int>(q.size())};
  });
  return count;
}

// Patches of x with channels last; terms are (tap, c).
template <class T>
class PixelPatches final : public Operand<T> {
 public:
  PixelPatches(const ConvShape& shape, const Tensor<const T>& x) : shape_(shape), x_(x) {}

  void pack(T* panels, int width, Range lanes, Range terms, std::byte*) const noexcept override {
    const int64_t channels = shape_.group_c();
    for (int64_t first = lanes.begin; first < lanes.end; first += width) {
      std::array<Run, kMaxWidth> runs;
      const int count = make_runs(shape_, {first, std::min(lanes.end, first + width)}, runs.data());
      for (int64_t at = terms.begin; at < terms.end;) {
        const int64_t c = at % channels, length = std::min(channels - c, terms.end - at);
        std::array<const T*, kMaxWidth> pixels{};
        tap_pixels(runs.data(), count, at / channels, c, pixels.data());
        layout_kernels<T>().pack_rows(panels, width, pixels.data(), runs[static_cast<std::size_t>(count - 1)].end,
                                      length);
        panels += length * width;
        at += length;
      }
    }
  }

 private:
  // Where the tap of each lane begins, null in the padding.
  void tap_pixels(const Run* runs, int count, int64_t tap, int64_t c, const T** pixels) const {
    const auto& [depth, height, width] = shape_.axis;
    const auto [ft, fr, fs] = tap_at(shape_, tap);
    for (const Run* run = runs; run != runs + count; ++run) {
      const int64_t d = depth.input(run->z, ft), h = height.input(run->p, fr);
      if (!depth.inside(d) || !height.inside(h)) continue;
      const T* row = x_.data + run->n * x_.stride[0] + c * x_.stride[1] + d * x_.stride[2] + h * x_.stride[3];
      for (int lane = run->begin; lane < run->end; ++lane) {
        const int64_t i = width.input(run->q + lane - run->begin, fs);
        if (width.inside(i)) pixels[lane] = row + i * x_.stride[4];
      }
    }
  }

  ConvShape shape_;
  Tensor<const T> x_;
};

// dy, or x under a filter of one cell, with its pixels as terms: rows of channels, whole images one after the other.
template <class T>
class PixelRows final : public Operand<T> {
 public:
  PixelRows(const ConvShape& s, const Tensor<const T>& dy)
      : pixels_(s.pixels()),
        dy_(dy),
        stride_(spatial_stride(dy, out_extents(s))),
        lattice_{{s.n, s.axis[0].out, s.axis[1].out, s.axis[2].out},
                 {dy.stride[0], dy.stride[2], dy.stride[3], dy.stride[4]}} {}

  std::size_t scratch_bytes(int) const override { return stride_ ? 0 : sizeof(int64_t); }

  void pack(T* panels, int width, Range lanes, Range terms, std::byte* scratch) const noexcept override {
    for (int64_t first = lanes.begin; first < lanes.end; first += width) {
      const Range channels{first, std::min(lanes.end, first + width)};
      for (int64_t at = terms.begin; at < terms.end;) {
        const int64_t n = at / pixels_, pixel = at % pixels_, count = std::min(pixels_ - pixel, terms.end - at);
        const T* data = dy_.data + n * dy_.stride[0];
        if (stride_) {
          MatrixOperand<T>(data, dy_.stride[1], *stride_)
              .pack(panels, width, channels, {pixel, pixel + count}, scratch);
        } else {
          pack_pixels(panels, width, channels, {at, at + count});
        }
        panels += count * width;
        at += count;
      }
    }
  }

 private:
  void pack_pixels(T* panel, int width, Range channels, Range terms) const {
    for (int64_t at = terms.begin; at < terms.end; ++at, panel += width) {
      int64_t offset = 0;
      lattice_.offsets({at, at + 1}, &offset);
      for (int64_t i = 0; i < width; ++i) {
        panel[i] = i < channels.size() ? dy_.data[offset + (channels.begin + i) * dy_.stride[1]] : T(0);
      }
    }
  }

  int64_t pixels_;
  Tensor<const T> dy_;
  std::optional<int64_t> stride_;
  Lattice lattice_;
};

// Patches of x in channel planes with their pixels as terms: lanes are cells (c, tap).
template <class T>
class PlanePatchRows final : public Operand<T> {
 public:
  PlanePatchRows(const ConvShape& shape, const Tensor<const T>& x, int64_t term_block)
      : shape_(shape), x_(x), term_block_(term_block) {}

  std::size_t scratch_bytes(int width) const override { return array_bytes(width, term_block_, sizeof(T)); }

  void pack(T* panels, int width, Range lanes, Range terms, std::byte* scratch) const noexcept override {
    T* rows = reinterpret_cast<T*>(scratch);
    const int64_t pixels = shape_.pixels();
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += terms.size() * width) {
      const auto count = static_cast<int>(std::min<int64_t>(width, lanes.end - first));
      std::array<const T*, kMaxWidth> pointers{};
      for (int lane = 0; lane < count; ++lane) {
        T* row = rows + lane * terms.size();
        pointers[static_cast<std::size_t>(lane)] = row;
        for (int64_t at = terms.begin; at < terms.end;) {
          const int64_t n = at / pixels, pixel = at % pixels, length = std::min(pixels - pixel, terms.end - at);
          gather_row(shape_, x_, n, (first + lane) / shape_.taps(), (first + lane) % shape_.taps(),
                     {pixel, pixel + length}, row);
          row += length;
          at += length;
        }
      }
      layout_kernels<T>().pack_rows(panels, width, pointers.data(), count, terms.size());
    }
  }

 private:
  ConvShape shape_;
  Tensor<const T> x_;
  int64_t term_block_;
};

// Patches of x with channels last and pixels as terms: lanes are cells (tap, c).
template <class T>
class PixelPatchRows final : public Operand<T> {
 public:
  PixelPatchRows(const ConvShape& shape, const Tensor<const T>& x) : shape_(shape), x_(x) {}

  void pack(T* panels, int width, Range lanes, Range terms, std::byte*) const noexcept override {
    const int64_t channels = shape_.group_c(), pixels = shape_.pixels();
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += terms.size() * width) {
      std::fill(panels, panels + terms.size() * width, T(0));
      const int64_t last = std::min(lanes.end, first + width);
      for (int64_t cell = first; cell < last;) {  // the channels of one tap at a time
        const int64_t tap = cell / channels, c = cell % channels, count = std::min(channels - c, last - cell);
        for (int64_t at = terms.begin; at < terms.end;) {
          const int64_t n = at / pixels, pixel = at % pixels, length = std::min(pixels - pixel, terms.end - at);
          copy_tap(panels + (at - terms.begin) * width + (cell - first), width, n, c, count, tap,
                   {pixel, pixel + length});
          at += length;
        }
        cell += count;
      }
    }
  }

 private:
  void copy_tap(T* panel, int width, int64_t n, int64_t c, int64_t channels, int64_t tap, Range block) const {
    const int64_t step = shape_.axis[2].stride * x_.stride[4];
    for_each_tap_run(shape_, x_, n, c, tap, block, [&](int64_t offset, int64_t, Range real, const T* cell) {
      T* out = panel + (offset + real.begin) * width;
      for (int64_t i = 0; i < real.size(); ++i, out += width, cell += step) {
        for (int64_t lane = 0; lane < channels; ++lane) out[lane] = cell[lane];
      }
    });
  }

  ConvShape shape_;
  Tensor<const T> x_;
};

}  // namespace fastconv::cpu::implicit
