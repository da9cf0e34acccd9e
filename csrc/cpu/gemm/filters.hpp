// Filters as an operand of a product.
#pragma once

#include <algorithm>

#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/extents.hpp"
#include "gemm.hpp"

namespace fastconv::cpu {

// Filters w[K, C/groups, T, R, S] of any strides: its rows are filters, and its terms (c, t, r, s) or, with taps
// first, (t, r, s, c): as the patches are walked.
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

  void pack(T* panels, int width, Range lanes, Range terms, std::byte* scratch) const noexcept override {
    const int64_t vector = vector_lanes<T>();
    if (joined_taps_ && terms.size() == size_ && width % vector == 0) return pack_taps_first(panels, width, lanes);
    auto* offsets = reinterpret_cast<int64_t*>(scratch);
    cells_.offsets(terms, offsets);
    const int64_t step = terms.size() > 1 ? offsets[1] - offsets[0] : 1;
    bool matrix = step == 1 || lane_stride_ == 1;
    for (int64_t j = 1; j < terms.size(); ++j) matrix = matrix && offsets[j] - offsets[j - 1] == step;
    if (matrix && terms.size() > 0) {
      const T* first = data_ + offsets[0] - terms.begin * step;
      return MatrixOperand<T>(first, lane_stride_, step).pack(panels, width, lanes, terms, scratch);
    }
    // Taps lie near each other, so all of a channel are read while they are in the first-level cache.
    const int64_t channels = taps_first_ && terms.size() == size_ ? cells_.extent[3] : 1;
    for (int64_t first = lanes.begin; first < lanes.end; first += width, panels += terms.size() * width) {
      const T* filters = data_ + first * lane_stride_;
      const int64_t count = std::min<int64_t>(width, lanes.end - first);
      for (int64_t c = 0; c < channels; ++c) {
        const T* ahead = filters + offsets[std::min(c + kAhead, channels - 1)];
        for (int64_t i = 0; i < count && channels > 1; ++i) __builtin_prefetch(ahead + i * lane_stride_);
        for (int64_t j = c; j < terms.size(); j += channels) {
          T* row = panels + j * width;
          for (int64_t i = 0; i < count; ++i) row[i] = filters[i * lane_stride_ + offsets[j]];
          std::fill(row + count, row + width, T(0));
        }
      }
    }
  }

  // Whether each filter is a run, its terms in the order in which they are walked.
  bool contiguous() const { return contiguous_; }
  Strided<T> in_place(Range lanes) const noexcept override {
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

}  // namespace fastconv::cpu
