// What implicit GEMM multiplies: patches of an image, filters and gradients, as operands that pack themselves.
//
// F is walked as (c, tap) where x lies in channel planes, so that a tap is a run of a row, and as (tap, c) where
// channels are contiguous, so that a pixel is one.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "cpu/implicit/plane_patches.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "gemm.hpp"

namespace fastconv::cpu {

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

struct Tap {
  int64_t t, r, s;
};
inline Tap tap_at(const ConvShape& shape, int64_t tap) {
  const auto& [depth, height, width] = shape.axis;
  return {tap / width.filter / height.filter, tap / width.filter % height.filter, tap % width.filter};
}

// Patches of x with channels last; k is (tap, c).
template <class T>
class PixelPatches final : public Operand<T> {
 public:
  PixelPatches(const ConvShape& shape, const Tensor<const T>& x) : shape_(shape), x_(x) {}

  void pack(T* panels, int width, Range lanes, Range k, std::byte*) const override {
    const int64_t channels = shape_.group_c();
    for (int64_t first = lanes.begin; first < lanes.end; first += width) {
      std::array<Run, kMaxWidth> runs;
      const int count = make_runs(shape_, {first, std::min(lanes.end, first + width)}, runs.data());
      for (int64_t at = k.begin; at < k.end;) {
        const int64_t c = at % channels, length = std::min(channels - c, k.end - at);
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

  const ConvShape& shape_;
  Tensor<const T> x_;
};

// Filters w[K, C/groups, T, R, S] of any strides; lanes are k, and k is walked as the patches are.
template <class T>
class Filters final : public Operand<T> {
 public:
  Filters(const ConvShape& s, const Tensor<const T>& w, bool taps_first)
      : data_(w.data), lane_stride_(w.stride[0]), taps_first_(taps_first) {
    const auto [t, r, f] = filter_extents(s);
    if (taps_first) {
      cells_ = {{t, r, f, s.group_c()}, {w.stride[2], w.stride[3], w.stride[4], w.stride[1]}};
    } else {
      cells_ = {{s.group_c(), t, r, f}, {w.stride[1], w.stride[2], w.stride[3], w.stride[4]}};
    }
    size_ = s.group_c() * s.taps();
    // Flipped filters, an input gradient's, count down.
    step_ = s.taps() > 1 && (w.stride[4] == -1 || (f == 1 && w.stride[3] == -1)) ? -1 : 1;
    joined_taps_ = taps_first && s.taps() > 1 && (f == 1 || w.stride[4] == step_) &&
                   (r == 1 || w.stride[3] == step_ * f) && (t == 1 || w.stride[2] == step_ * r * f);
    contiguous_ = true;
    for (int64_t axis = 3, span = 1; axis >= 0; span *= cells_.extent[static_cast<std::size_t>(axis--)]) {
      const auto i = static_cast<std::size_t>(axis);
      contiguous_ = contiguous_ && (cells_.extent[i] == 1 || cells_.stride[i] == span);
    }
  }

  std::size_t scratch_bytes(int) const override { return array_bytes(size_, 1, sizeof(int64_t)); }

  void pack(T* panels, int width, Range lanes, Range k, std::byte* scratch) const override {
    const int64_t vector = vector_lanes<T>();
    if (joined_taps_ && k.size() == size_ && width % vector == 0) return pack_taps_first(panels, width, lanes);
    auto* offsets = reinterpret_cast<int64_t*>(scratch);
    cells_.offsets(k, offsets);
    const int64_t step = k.size() > 1 ? offsets[1] - offsets[0] : 1;
    bool matrix = step == 1 || lane_stride_ == 1;
    for (int64_t j = 1; j < k.size(); ++j) matrix = matrix && offsets[j] - offsets[j - 1] == step;
    if (matrix && k.size() > 0) {
      const T* first = data_ + offsets[0] - k.begin * step;
      return MatrixOperand<T>(first, lane_stride_, step).pack(panels, width, lanes, k, scratch);
    }
    // Taps lie near each other, so all of a channel are read while they are in the first-level cache.
    const int64_t channels = taps_first_ && k.size() == size_ ? cells_.extent[3] : 1;
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += k.size() * width) {
      const T* filters = data_ + first * lane_stride_;
      const int64_t count = std::min<int64_t>(width, lanes.end - first);
      for (int64_t c = 0; c < channels; ++c) {
        const T* ahead = filters + offsets[std::min(c + kAhead, channels - 1)];
        for (int64_t i = 0; i < count && channels > 1; ++i) __builtin_prefetch(ahead + i * lane_stride_);
        for (int64_t j = c; j < k.size(); j += channels) {
          T* row = panels + j * width;
          for (int64_t i = 0; i < count; ++i) row[i] = filters[i * lane_stride_ + offsets[j]];
          std::fill(row + count, row + width, T(0));
        }
      }
    }
  }

  Strided<T> in_place(Range lanes) const override {
    if (!contiguous_) return {};
    return {data_ + lanes.begin * lane_stride_, lane_stride_, 1};
  }

 private:
  // Of each channel the taps lie side by side: squares of filters and taps are transposed.
  void pack_taps_first(T* panels, int width, Range lanes) const {
    const int64_t vector = vector_lanes<T>(), channels = cells_.extent[3], taps = size_ / channels;
    const T* data = step_ > 0 ? data_ : data_ - (taps - 1);
    const int64_t tap_step = step_ * channels * width, first_tap = step_ > 0 ? 0 : (taps - 1) * channels * width;
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += size_ * width) {
      for (int64_t lane = 0; lane < width; lane += vector) {
        const auto count = static_cast<int>(std::clamp<int64_t>(lanes.end - first - lane, 0, vector));
        for (int64_t c = 0; c < channels; ++c) {
          layout_kernels<T>().planes_to_pixels(panels + first_tap + c * width + lane, tap_step,
                                               data + (first + lane) * lane_stride_ + c * cells_.stride[3],
                                               lane_stride_, count, taps);
        }
      }
    }
  }

  static constexpr int64_t kAhead = 6;  // channels whose taps are fetched meanwhile

  const T* data_;
  int64_t lane_stride_, size_, step_;
  Lattice cells_;
  bool taps_first_, contiguous_, joined_taps_;  // joined: first, and side by side
};

// dy, or x under a filter of one cell, with its pixels as k: rows of channels, whole images one after the other.
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

  void pack(T* panels, int width, Range lanes, Range k, std::byte* scratch) const override {
    for (int64_t first = lanes.begin; first < lanes.end; first += width) {
      const Range channels{first, std::min(lanes.end, first + width)};
      for (int64_t at = k.begin; at < k.end;) {
        const int64_t n = at / pixels_, pixel = at % pixels_, count = std::min(pixels_ - pixel, k.end - at);
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
  void pack_pixels(T* panel, int width, Range channels, Range k) const {
    for (int64_t at = k.begin; at < k.end; ++at, panel += width) {
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

// Patches of x in channel planes with their pixels as k: lanes are cells (c, tap).
template <class T>
class PlanePatchRows final : public Operand<T> {
 public:
  PlanePatchRows(const ConvShape& shape, const Tensor<const T>& x, int64_t k_block)
      : shape_(shape), x_(x), k_block_(k_block) {}

  std::size_t scratch_bytes(int width) const override { return array_bytes(width, k_block_, sizeof(T)); }

  void pack(T* panels, int width, Range lanes, Range k, std::byte* scratch) const override {
    T* rows = reinterpret_cast<T*>(scratch);
    const int64_t pixels = shape_.pixels();
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += k.size() * width) {
      const auto count = static_cast<int>(std::min<int64_t>(width, lanes.end - first));
      std::array<const T*, kMaxWidth> pointers{};
      for (int lane = 0; lane < count; ++lane) {
        T* row = rows + lane * k.size();
        pointers[static_cast<std::size_t>(lane)] = row;
        for (int64_t at = k.begin; at < k.end;) {
          const int64_t n = at / pixels, pixel = at % pixels, length = std::min(pixels - pixel, k.end - at);
          gather_row(shape_, x_, n, (first + lane) / shape_.taps(), (first + lane) % shape_.taps(),
                     {pixel, pixel + length}, row);
          row += length;
          at += length;
        }
      }
      layout_kernels<T>().pack_rows(panels, width, pointers.data(), count, k.size());
    }
  }

 private:
  const ConvShape& shape_;
  Tensor<const T> x_;
  int64_t k_block_;
};

// Patches of x with channels last and pixels as k: lanes are cells (tap, c).
template <class T>
class PixelPatchRows final : public Operand<T> {
 public:
  PixelPatchRows(const ConvShape& shape, const Tensor<const T>& x) : shape_(shape), x_(x) {}

  void pack(T* panels, int width, Range lanes, Range k, std::byte*) const override {
    const int64_t channels = shape_.group_c(), pixels = shape_.pixels();
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += k.size() * width) {
      std::fill(panels, panels + k.size() * width, T(0));
      const int64_t last = std::min(lanes.end, first + width);
      for (int64_t cell = first; cell < last;) {  // the channels of one tap at a time
        const int64_t tap = cell / channels, c = cell % channels, count = std::min(channels - c, last - cell);
        for (int64_t at = k.begin; at < k.end;) {
          const int64_t n = at / pixels, pixel = at % pixels, length = std::min(pixels - pixel, k.end - at);
          copy_tap(panels + (at - k.begin) * width + (cell - first), width, n, c, count, tap, {pixel, pixel + length});
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

  const ConvShape& shape_;
  Tensor<const T> x_;
};

}  // namespace fastconv::cpu
