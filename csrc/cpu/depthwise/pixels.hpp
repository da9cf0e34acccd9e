// Depthwise convolution with channels last, in memory or in a stage: what is computed from some neighbouring channels.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "cpu/runtime/isa.hpp"
#include "cpu/walk/extents.hpp"

namespace fastconv::cpu::depthwise {

// Outputs along one axis that read the same taps.
struct Run {
  Range outputs, taps;
};

inline std::vector<Run> runs_of(const Axis& a) {
  std::vector<Run> runs;
  for (int64_t o = 0; o < a.out; ++o) {
    Range taps = a.taps(o);
    if (taps.size() == 0) taps = {};  // wherever they would be
    if (runs.empty() || runs.back().taps.begin != taps.begin || runs.back().taps.end != taps.end)
      runs.push_back({{o, o}, taps});
    runs.back().outputs.end = o + 1;
  }
  return runs;
}

// The rectangles of outputs of a plane, with their taps; x and y channels last.
template <class T>
class Rectangles {
 public:
  Rectangles(const ConvShape& s, const std::array<int64_t, 5>& x, const std::array<int64_t, 5>& y)
      : s_(s), x_(x), y_(y), depths_(runs_of(s.axis[0])), rows_(runs_of(s.axis[1])), columns_(runs_of(s.axis[2])) {
    for (const Run& depth : depths_) {
      for (const Run& row : rows_) {
        for (const Run& column : columns_) add_taps(depth.taps, row.taps, column.taps);
      }
    }
    lists_.push_back(static_cast<int64_t>(taps_.size()));
  }

  // Those of depth z, their rows within `band`. x and y: the channels' first cells.
  template <class Visit>
  void for_each(int64_t z, Range band, const T* x, T* y, Visit visit) const {
    std::size_t list = 0;
    for (const Run& depth : depths_) {
      if (z >= depth.outputs.end) {
        list += rows_.size() * columns_.size();
        continue;
      }
      for (const Run& row : rows_) {
        const Range rows{std::max(row.outputs.begin, band.begin), std::min(row.outputs.end, band.end)};
        for (const Run& column : columns_) {
          const int64_t first = lists_[list], end = lists_[++list];
          if (rows.size() > 0)
            visit(PixelRectangle<T>{rows.size(), column.outputs.size(),
                                    x + cell(s_, x_, z, rows.begin, column.outputs.begin), s_.axis[1].stride * x_[3],
                                    s_.axis[2].stride * x_[4],
                                    y + z * y_[2] + rows.begin * y_[3] + column.outputs.begin * y_[4], y_[3], y_[4],
                                    taps_.data() + first, end - first});
        }
      }
      return;
    }
  }

 private:
  // Where the first tap of an output lies, perhaps in the padding.
  static int64_t cell(const ConvShape& s, const std::array<int64_t, 5>& x, int64_t z, int64_t p, int64_t q) {
    return s.axis[0].input(z, 0) * x[2] + s.axis[1].input(p, 0) * x[3] + s.axis[2].input(q, 0) * x[4];
  }
  void add_taps(Range depths, Range rows, Range columns) {
    const auto& [depth, height, width] = s_.axis;
    lists_.push_back(static_cast<int64_t>(taps_.size()));
    for (int64_t t = depths.begin; t < depths.end; ++t) {
      for (int64_t r = rows.begin; r < rows.end; ++r) {
        for (int64_t f = columns.begin; f < columns.end; ++f) {
          taps_.push_back({t * depth.dilation * x_[2] + r * height.dilation * x_[3] + f * width.dilation * x_[4],
                           (t * height.filter + r) * width.filter + f});
        }
      }
    }
  }

  ConvShape s_;
  std::array<int64_t, 5> x_, y_;
  std::vector<Run> depths_, rows_, columns_;
  std::vector<PixelTap> taps_;
  std::vector<int64_t> lists_;
};

// [block of channels][tap][lanes], the bias behind the taps, zeros after the last channel.
template <class T>
void pack_pixel_weights(const ConvShape& s, const Tensor<const T>& w, const Vector<const T>& bias, T* packed) {
  const int64_t lanes = vector_lanes<T>(), taps = s.taps();
  std::fill_n(packed, ceil_div(s.k, lanes) * (taps + 1) * lanes, T(0));
  for (int64_t k = 0; k < s.k; ++k) {
    T* out = packed + k / lanes * (taps + 1) * lanes + k % lanes;
    for_each_cell(w, k, 0, filter_extents(s), {0, taps}, [&](const T& cell, int64_t tap) { out[tap * lanes] = cell; });
    if (bias.data != nullptr) out[taps * lanes] = bias[k];
  }
}

// The taps of one filter, contiguous.
template <class T>
void copy_filter(const ConvShape& s, const Tensor<const T>& w, int64_t k, T* weights) {
  for_each_cell(w, k, 0, filter_extents(s), {0, s.taps()}, [&](const T& cell, int64_t tap) { weights[tap] = cell; });
}

// The stride, 1 or 2, of a convolution that the kernels for 3x3 filters serve; else 0.
inline int64_t stride3x3(const ConvShape& s) {
  const auto& [depth, height, width] = s.axis;
  const bool plain =
      depth.filter == 1 && height.filter == 3 && width.filter == 3 && height.dilation == 1 && width.dilation == 1;
  return plain && height.stride == width.stride && width.stride <= 2 ? width.stride : 0;
}
// In planes they want the columns side by side.
inline int64_t plane_stride3x3(const ConvShape& s, int64_t x_column, int64_t y_column) {
  return x_column == 1 && y_column == 1 ? stride3x3(s) : 0;
}

// The plane of x that the outputs of depth z read with a single tap in depth; it has no rows in the padding.
template <class T>
Plane<T> input_plane(const ConvShape& s, const Tensor<T>& x, int64_t n, int64_t c, int64_t z) {
  const auto& [depth, height, width] = s.axis;
  const int64_t d = depth.input(z, 0);
  if (!depth.inside(d)) return {x.data, 0, 0, 0, width.in};
  return {x.at(n, c) + d * x.stride[2], x.stride[3], x.stride[4], height.in, width.in};
}

template <class T>
Plane<T> output_rows(const ConvShape& s, const Tensor<T>& y, int64_t n, int64_t k, int64_t z, Range rows) {
  return {y.at(n, k) + z * y.stride[2] + rows.begin * y.stride[3], y.stride[3], y.stride[4], rows.size(),
          s.axis[2].out};
}

// Channels last: what is computed from some neighbouring channels of one plane.
template <class T>
class Pixels {
 public:
  using Strides = std::array<int64_t, 5>;
  Pixels(const ConvShape& s, const Strides& x, const Strides& y)
      : s_(s), x_(x), y_(y), rectangles_(s, x, y), stride_(stride3x3(s)) {}

  // Outputs of depth z and some rows. x and y: the channels' first cells.
  void correlate(const T* x, T* y, int64_t z, Range rows, int64_t channels, const T* weights, bool relu) const {
    if (stride_ != 0) {
      return depthwise_kernels<T>().pixels3x3[stride_ - 1](output_rows<T>(s_, {y, y_}, 0, 0, z, rows),
                                                           input_plane<const T>(s_, {x, x_}, 0, 0, z), pad_top(rows),
                                                           s_.axis[2].pad_begin, channels, weights, relu);
    }
    rectangles_.for_each(z, rows, x, y, [&](const PixelRectangle<T>& outputs) {
      depthwise_kernels<T>().pixels(outputs, channels, s_.taps(), weights, relu);
    });
  }

  // sums[channels / lanes][taps][lanes] += the gradients of these outputs times the inputs.
  void reduce(const T* x, const T* dy, int64_t z, Range rows, int64_t channels, T* sums) const {
    if (stride_ != 0) {
      return depthwise_kernels<T>().reduce_pixels3x3[stride_ - 1](output_rows<const T>(s_, {dy, y_}, 0, 0, z, rows),
                                                                  input_plane<const T>(s_, {x, x_}, 0, 0, z),
                                                                  pad_top(rows), s_.axis[2].pad_begin, channels, sums);
    }
    rectangles_.for_each(z, rows, x, const_cast<T*>(dy), [&](const PixelRectangle<T>& outputs) {  // dy is only read
      depthwise_kernels<T>().reduce_pixels(outputs, channels, s_.taps(), sums);
    });
  }

 private:
  int64_t pad_top(Range rows) const { return s_.axis[1].pad_begin - rows.begin * stride_; }

  ConvShape s_;
  Strides x_, y_;
  Rectangles<T> rectangles_;
  int64_t stride_;
};

// dw from the sums of all channels, [channels / lanes][taps][lanes].
template <class T>
void write_pixel_gradients(const ConvShape& s, const T* sums, const Tensor<T>& dw) {
  const int64_t lanes = vector_lanes<T>();
  for (int64_t k = 0; k < s.k; ++k) {
    const T* sum = sums + k / lanes * s.taps() * lanes + k % lanes;
    for_each_cell(dw, k, 0, filter_extents(s), {0, s.taps()}, [&](T& cell, int64_t tap) { cell = sum[tap * lanes]; });
  }
}

}  // namespace fastconv::cpu::depthwise
