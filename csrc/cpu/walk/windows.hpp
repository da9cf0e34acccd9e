// The taps of sliding windows, for kernels that compute outputs side by side: a row of them, or the channels of one.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "conv_shape.hpp"
#include "cpu/kernels/table.hpp"

namespace fastconv::cpu {

// All taps of a window, numbered (t, r, s), and which of them lie inside the input for given outputs. Offsets are in
// elements from origin(): the input cell that the first tap of output (z, p, 0) reads, perhaps in the padding.
class Windows {
 public:
  Windows(const std::array<Axis, 3>& axis, const std::array<int64_t, 5>& stride) : axis_(axis), stride_(stride) {
    const auto& [depth, height, width] = axis;
    for (int64_t t = 0; t < depth.filter; ++t) {
      for (int64_t r = 0; r < height.filter; ++r) {
        for (int64_t s = 0; s < width.filter; ++s) {
          const int64_t offset =
              t * depth.dilation * stride[2] + r * height.dilation * stride[3] + s * width.dilation * stride[4];
          const Range real = width.outputs(s);
          row_taps_.push_back({offset, real.begin, real.end});
          numbers_.push_back(static_cast<int32_t>(numbers_.size()));
        }
      }
    }
  }

  int64_t count() const { return static_cast<int64_t>(row_taps_.size()); }
  // The taps along a row of outputs, with the outputs at which each reads real cells.
  const RowTap* row_taps() const { return row_taps_.data(); }
  const int32_t* numbers() const { return numbers_.data(); }

  int64_t origin(int64_t z, int64_t p, int64_t q) const {
    return axis_[0].input(z, 0) * stride_[2] + axis_[1].input(p, 0) * stride_[3] + axis_[2].input(q, 0) * stride_[4];
  }

  // Calls visit(number) for each tap of row (z, p) whose depth and height are inside.
  template <class Visit>
  void for_each_row_tap(int64_t z, int64_t p, Visit visit) const {
    const auto& [depth, height, width] = axis_;
    int32_t number = 0;
    for (int64_t t = 0; t < depth.filter; ++t) {
      const bool inside = depth.inside(depth.input(z, t));
      for (int64_t r = 0; r < height.filter; ++r, number += static_cast<int32_t>(width.filter)) {
        if (!inside || !height.inside(height.input(p, r))) continue;
        for (int32_t s = 0; s < width.filter; ++s) visit(number + s);
      }
    }
  }
  // Calls visit(number) for each tap of output (z, p, q) that is inside.
  template <class Visit>
  void for_each_pixel_tap(int64_t z, int64_t p, int64_t q, Visit visit) const {
    for_each_row_tap(z, p, [&](int32_t number) {
      const RowTap& tap = row_taps_[static_cast<std::size_t>(number)];
      if (tap.begin <= q && q < tap.end) visit(number);
    });
  }

 private:
  std::array<Axis, 3> axis_;
  std::array<int64_t, 5> stride_;
  std::vector<RowTap> row_taps_;
  std::vector<int32_t> numbers_;
};

}  // namespace fastconv::cpu
