// The cells of a tensor that a filter tap reads at each output.
#pragma once

#include <algorithm>
#include <cstdint>

#include "extents.hpp"

namespace fastconv::cpu {

// The i in [0, count) for which first + i * stride is a cell of the axis, not padding.
inline Range real_cells(const Axis& a, int64_t first, int64_t count) {
  const int64_t end = std::clamp<int64_t>(ceil_div(a.in - first, a.stride), 0, count);
  return {std::min(end, first < 0 ? ceil_div(-first, a.stride) : 0), end};
}

// Walks the output positions of a block as one filter tap sees channel c of image n, run by run:
// visit(offset in the block, length, the part of the run that reads real cells, the first such cell).
template <class T, class Visit>
void for_each_tap_run(const ConvShape& s, const Tensor<T>& t, int64_t n, int64_t c, int64_t tap, Range block,
                      Visit visit) {
  const auto& [depth, height, width] = s.axis;
  const int64_t fs = tap % width.filter, fr = tap / width.filter % height.filter,
                ft = tap / width.filter / height.filter;
  const Range real = width.outputs(fs);
  T* plane = t.at(n, c);
  for_each_run(out_extents(s), block, [&](int64_t offset, int64_t z, int64_t p, Range q) {
    const int64_t d = depth.input(z, ft), h = height.input(p, fr);
    const int64_t begin = std::clamp(real.begin, q.begin, q.end), end = std::clamp(real.end, q.begin, q.end);
    if (!depth.inside(d) || !height.inside(h) || begin == end) return visit(offset, q.size(), Range{0, 0}, plane);
    T* cell = plane + d * t.stride[2] + h * t.stride[3] + width.input(begin, fs) * t.stride[4];
    visit(offset, q.size(), Range{begin - q.begin, end - q.begin}, cell);
  });
}

// One row of the patches: what a filter tap reads of channel c at each position of the block.
template <class T>
void gather_row(const ConvShape& s, const Tensor<const T>& x, int64_t n, int64_t c, int64_t tap, Range block, T* row) {
  const int64_t step = s.axis[2].stride * x.stride[4];
  for_each_tap_run(s, x, n, c, tap, block, [&](int64_t offset, int64_t length, Range real, const T* cell) {
    T* out = row + offset;
    std::fill(out, out + real.begin, T(0));
    if (step == 1) {
      std::copy_n(cell, real.size(), out + real.begin);
    } else {
      for (int64_t i = 0; i < real.size(); ++i) out[real.begin + i] = cell[i * step];
    }
    std::fill(out + real.end, out + length, T(0));
  });
}

}  // namespace fastconv::cpu
