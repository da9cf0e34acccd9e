// y[n,k,z,p,q] sums w[k,0,t,r,s] x[n,k/(K/groups),...] over the taps that do not lie in the padding.
//
// Channels last, lanes are channels, and the outputs are cut into rectangles that read the same taps: for a padded
// 3x3 filter the inside, four edges and four corners. In planes lanes are outputs of a row; 3x3 filters have kernels
// that read each row of x once for all the outputs it is part of, any other is computed a row of outputs at a time.
#include "depthwise.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "adjoint.hpp"
#include "isa.hpp"
#include "thread_pool.hpp"
#include "windows.hpp"
#include "workspace.hpp"

namespace fastconv::cpu::depthwise {
namespace {

constexpr double kSerialFlops = 1e5;  // below this, waking a thread costs more than it saves
constexpr int64_t kVectors = 8;       // of channels that are computed together
constexpr int64_t kBandRows = 9;
constexpr int64_t kMinTasks = 4;

template <class T>
const DepthwiseKernels<T>& kernel() {
  if constexpr (sizeof(T) == 4) {
    return kernels().depthwise32;
  } else {
    return kernels().depthwise64;
  }
}

int threads_for(const ConvShape& s) { return s.flops() < kSerialFlops ? 1 : num_threads(); }

template <class T, class U>
bool channels_last(const ConvShape& s, const Tensor<T>& x, const Tensor<U>& y) {
  return s.k > 1 && s.group_k() == 1 && x.stride[1] == 1 && y.stride[1] == 1;
}

// Outputs along one axis that read the same taps.
struct Run {
  Range outputs, taps;
};

std::vector<Run> runs_of(const Axis& a) {
  std::vector<Run> runs;
  for (int64_t o = 0; o < a.out; ++o) {
    Range taps{0, a.filter};
    while (taps.begin < taps.end && a.input(o, taps.begin) < 0) ++taps.begin;
    while (taps.end > taps.begin && a.input(o, taps.end - 1) >= a.in) --taps.end;
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

  const ConvShape& s_;
  std::array<int64_t, 5> x_, y_;
  std::vector<Run> depths_, rows_, columns_;
  std::vector<PixelTap> taps_;
  std::vector<int64_t> lists_;
};

// [block of channels][tap][lanes], the bias behind the taps, zeros after the last channel.
template <class T>
void pack_pixel_weights(const ConvShape& s, const Tensor<const T>& w, const Vector<const T>& bias, T* packed) {
  const int64_t lanes = kernel<T>().lanes, taps = s.taps();
  std::fill_n(packed, ceil_div(s.k, lanes) * (taps + 1) * lanes, T(0));
  for (int64_t k = 0; k < s.k; ++k) {
    T* out = packed + k / lanes * (taps + 1) * lanes + k % lanes;
    for_each_cell(w, k, 0, filter_extents(s), {0, taps}, [&](const T& cell, int64_t tap) { out[tap * lanes] = cell; });
    if (bias.data != nullptr) out[taps * lanes] = bias[k];
  }
}

// The stride, 1 or 2, of a convolution that the kernels for 3x3 filters serve; else 0.
int64_t stride3x3(const ConvShape& s) {
  const auto& [depth, height, width] = s.axis;
  const bool plain =
      depth.filter == 1 && height.filter == 3 && width.filter == 3 && height.dilation == 1 && width.dilation == 1;
  return plain && height.stride == width.stride && width.stride <= 2 ? width.stride : 0;
}
// In planes they want the columns side by side.
int64_t plane_stride3x3(const ConvShape& s, int64_t x_column, int64_t y_column) {
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

template <class T>
void pixels(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const int64_t lanes = kernel<T>().lanes, depth = s.axis[0].out, vector_weights = (s.taps() + 1) * lanes;
  const Blocks blocks(ceil_div(s.k, lanes), kVectors), bands(s.axis[1].out, kBandRows);
  const std::size_t bytes = array_bytes(blocks.extent, vector_weights, sizeof(T));
  const int threads = threads_within(workspace_limit, bytes, 0, threads_for(s), "direct");
  const Workspace memory(bytes);
  T* weights = memory.at<T>(0);
  pack_pixel_weights(s, w, bias, weights);
  const Rectangles<T> rectangles(s, x.stride, y.stride);
  const int64_t stride = stride3x3(s);
  parallel_for(s.n * depth * bands.count * blocks.count, threads, [&](int64_t unit, int) {
    const Range vectors = blocks[unit % blocks.count];
    const int64_t row = unit / blocks.count, band = row % bands.count, plane = row / bands.count;
    const int64_t n = plane / depth, z = plane % depth, c = vectors.begin * lanes;
    const int64_t channels = std::min(s.k, vectors.end * lanes) - c;
    const T* block = weights + vectors.begin * vector_weights;
    if (stride != 0) {
      const int64_t pad_top = s.axis[1].pad_begin - bands[band].begin * stride;
      return kernel<T>().pixels3x3[stride - 1](output_rows(s, y, n, c, z, bands[band]), input_plane(s, x, n, c, z),
                                               pad_top, s.axis[2].pad_begin, channels, block, relu);
    }
    rectangles.for_each(z, bands[band], x.at(n, c), y.at(n, c), [&](const PixelRectangle<T>& outputs) {
      kernel<T>().pixels(outputs, channels, s.taps(), block, relu);
    });
  });
}

template <class T>
void reduce_pixels(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                   std::size_t workspace_limit) {
  const int64_t lanes = kernel<T>().lanes, depth = s.axis[0].out;
  const int64_t total = ceil_div(s.k, lanes);
  const Blocks blocks(total, std::min(kVectors, total / kMinTasks));
  const std::size_t own = array_bytes(blocks.size * s.taps(), lanes, sizeof(T));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const Rectangles<T> rectangles(s, x.stride, dy.stride);
  const int64_t stride = stride3x3(s);
  parallel_for(blocks.count, threads, [&](int64_t block, int slot) {
    const Range vectors = blocks[block];
    const Range channels{vectors.begin * lanes, std::min(s.k, vectors.end * lanes)};
    T* sums = memory.at<T>(static_cast<std::size_t>(slot) * own);
    std::fill_n(sums, vectors.size() * s.taps() * lanes, T(0));
    for (int64_t plane = 0; plane < s.n * depth; ++plane) {
      const int64_t n = plane / depth, z = plane % depth;
      if (stride != 0) {
        kernel<T>().reduce_pixels3x3[stride - 1](output_rows(s, dy, n, channels.begin, z, {0, s.axis[1].out}),
                                                 input_plane(s, x, n, channels.begin, z), s.axis[1].pad_begin,
                                                 s.axis[2].pad_begin, channels.size(), sums);
        continue;
      }
      T* gradient = const_cast<T*>(dy.at(n, channels.begin));  // only read
      rectangles.for_each(z, {0, s.axis[1].out}, x.at(n, channels.begin), gradient,
                          [&](const PixelRectangle<T>& outputs) {
                            kernel<T>().reduce_pixels(outputs, channels.size(), s.taps(), sums);
                          });
    }
    for (int64_t c = 0; c < channels.size(); ++c) {
      const T* sum = sums + c / lanes * s.taps() * lanes + c % lanes;
      for_each_cell(dw, channels.begin + c, 0, filter_extents(s), {0, s.taps()},
                    [&](T& cell, int64_t tap) { cell = sum[tap * lanes]; });
    }
  });
}

template <class T>
void pack_plane_weights(const ConvShape& s, const Tensor<const T>& w, int64_t k, T* weights) {
  for_each_cell(w, k, 0, filter_extents(s), {0, s.taps()}, [&](const T& cell, int64_t tap) { weights[tap] = cell; });
}

template <class T>
void planes(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const std::size_t weight_bytes = array_bytes(s.taps(), 1, sizeof(T));
  const std::size_t own = 2 * weight_bytes + array_bytes(s.taps(), 1, sizeof(RowTap));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const Windows windows(s.axis, x.stride);
  const int64_t stride = plane_stride3x3(s, x.stride[4], y.stride[4]);
  parallel_for(s.n * s.k, threads, [&](int64_t plane, int slot) {
    const int64_t n = plane / s.k, k = plane % s.k, c = k / s.group_k();
    const std::size_t scratch = static_cast<std::size_t>(slot) * own;
    T *weights = memory.at<T>(scratch), *some_weights = memory.at<T>(scratch + weight_bytes);
    auto* some_taps = memory.at<RowTap>(scratch + 2 * weight_bytes);
    pack_plane_weights(s, w, k, weights);
    const T b = bias.data != nullptr ? bias[k] : T(0);
    for (int64_t z = 0; stride != 0 && z < depth.out; ++z) {
      kernel<T>().plane3x3[stride - 1](output_rows(s, y, n, k, z, {0, height.out}), input_plane(s, x, n, c, z),
                                       height.pad_begin, width.pad_begin, weights, b, relu);
    }
    for (int64_t row = 0; stride == 0 && row < depth.out * height.out; ++row) {
      const int64_t z = row / height.out, p = row % height.out;
      int64_t count = 0;
      windows.for_each_row_tap(z, p, [&](int32_t number) {
        some_weights[count] = weights[number];
        some_taps[count++] = windows.row_taps()[number];
      });
      kernel<T>().row(y.at(n, k) + z * y.stride[2] + p * y.stride[3], y.stride[4], width.out,
                      x.at(n, c) + windows.origin(z, p, 0), some_taps, some_weights, count, width.stride * x.stride[4],
                      b, relu);
    }
  });
}

template <class T>
void reduce_planes(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                   std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const int64_t lanes = kernel<T>().lanes;
  const std::size_t sum_bytes = array_bytes(s.taps(), lanes, sizeof(T));
  const std::size_t tap_bytes = array_bytes(s.taps(), 1, sizeof(RowTap));
  const std::size_t own = sum_bytes + tap_bytes + array_bytes(s.taps(), 1, sizeof(int32_t));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const Windows windows(s.axis, x.stride);
  const int64_t stride = plane_stride3x3(s, x.stride[4], dy.stride[4]);
  parallel_for(s.k, threads, [&](int64_t k, int slot) {
    const int64_t c = k / s.group_k();
    const std::size_t scratch = static_cast<std::size_t>(slot) * own;
    T* sums = memory.at<T>(scratch);
    auto* some_taps = memory.at<RowTap>(scratch + sum_bytes);
    auto* numbers = memory.at<int32_t>(scratch + sum_bytes + tap_bytes);
    std::fill_n(sums, s.taps() * lanes, T(0));
    for (int64_t i = 0; stride != 0 && i < s.n * depth.out; ++i) {
      const int64_t n = i / depth.out, z = i % depth.out;
      kernel<T>().reduce_plane3x3[stride - 1](output_rows(s, dy, n, k, z, {0, height.out}), input_plane(s, x, n, c, z),
                                              height.pad_begin, width.pad_begin, sums);
    }
    for (int64_t row = 0; stride == 0 && row < s.n * depth.out * height.out; ++row) {
      const int64_t p = row % height.out, z = row / height.out % depth.out, n = row / height.out / depth.out;
      int64_t count = 0;
      windows.for_each_row_tap(z, p, [&](int32_t number) {
        numbers[count] = number;
        some_taps[count++] = windows.row_taps()[number];
      });
      kernel<T>().reduce_row(sums, dy.at(n, k) + z * dy.stride[2] + p * dy.stride[3], dy.stride[4], width.out,
                             x.at(n, c) + windows.origin(z, p, 0), some_taps, numbers, count,
                             width.stride * x.stride[4]);
    }
    for_each_cell(dw, k, 0, filter_extents(s), {0, s.taps()}, [&](T& cell, int64_t tap) {
      cell = std::accumulate(sums + tap * lanes, sums + (tap + 1) * lanes, T(0));
    });
  });
}

// dx of 3x3 filters with a stride of 2.
template <class T>
void spread_planes(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx) {
  const auto& [depth, height, width] = s.axis;
  parallel_for(s.n * s.c, threads_for(s), [&](int64_t plane, int) {
    const int64_t n = plane / s.c, c = plane % s.c;
    T weights[9];
    pack_plane_weights(s, w, c, weights);
    kernel<T>().spread_plane3x3({dx.at(n, c), dx.stride[3], 1, height.in, width.in},
                                output_rows(s, dy, n, c, 0, {0, height.out}), height.pad_begin, width.pad_begin,
                                weights);
  });
}

}  // namespace

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  if (channels_last(s, x, y)) return pixels(s, x, w, bias, relu, y, workspace_limit);
  planes(s, x, w, bias, relu, y, workspace_limit);
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, std::size_t workspace_limit) {
  const bool flat = s.axis[0].in == 1 && s.axis[0].pointwise();
  if (flat && !channels_last(s, dy, dx) && plane_stride3x3(s, dx.stride[4], dy.stride[4]) == 2)
    return spread_planes(s, dy, w, dx);
  for_each_phase(s, w, dx, [&](const ConvShape& phase, Tensor<const T> taps, Tensor<T> inputs) {
    fprop<T>(phase, dy, taps, {}, false, inputs, workspace_limit);
  });
}

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  if (channels_last(s, x, dy)) return reduce_pixels(s, dy, x, dw, workspace_limit);
  reduce_planes(s, dy, x, dw, workspace_limit);
}

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);          \
  template void wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
