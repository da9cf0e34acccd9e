// Max-pooling, x[N,C,D,H,W] to y[N,C,Z,P,Q].
//
// The outputs of a row are lanes that advance together through the taps of their windows: along q where a row is
// contiguous (NCHW), along c where channels are (NHWC). A lane keeps the best value and the number of the tap it came
// from; the flat input index is linear in the output position and the tap, so it is made once, at the end.
#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "patches.hpp"
#include "thread_pool.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kLanes = 256;

template <class T>
struct Lanes {
  T best[kLanes];
  int32_t tap[kLanes];  // -1: no real cell yet

  void reset(int64_t count) {
    std::fill_n(
        best, count,
        std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest());
    std::fill_n(tap, count, -1);
  }

  // The first of equal values stays; a NaN beats all but an earlier NaN; the first cell counts even if it is -inf.
  template <bool kUnitStep>
  void update(Range lanes, const T* cell, int64_t step, int32_t number) {
    for (int64_t i = 0; i < lanes.size(); ++i) {
      T& b = best[lanes.begin + i];
      int32_t& t = tap[lanes.begin + i];
      const T value = cell[kUnitStep ? i : i * step];
      const bool take = (value > b) | ((value != value) & (b == b)) | (t < 0);
      b = take ? value : b;
      t = take ? number : t;
    }
  }
  void update(Range lanes, const T* cell, int64_t step, int32_t number) {
    step == 1 ? update<true>(lanes, cell, step, number) : update<false>(lanes, cell, step, number);
  }
};

// What the taps of a window add to the flat index of its first cell.
std::vector<int64_t> tap_offsets(const PoolShape& s) {
  const auto& [depth, height, width] = s.axis;
  std::vector<int64_t> offsets;
  for (int64_t t = 0; t < depth.filter; ++t) {
    for (int64_t r = 0; r < height.filter; ++r) {
      for (int64_t f = 0; f < width.filter; ++f) {
        offsets.push_back((t * depth.dilation * height.in + r * height.dilation) * width.in + f * width.dilation);
      }
    }
  }
  return offsets;
}

// Calls visit(number, d, h, s) for the taps of the windows at row (z, p) whose d and h are inside.
template <class Visit>
void for_each_tap(const PoolShape& shape, int64_t z, int64_t p, Visit visit) {
  const auto& [depth, height, width] = shape.axis;
  int32_t number = 0;
  for (int64_t t = 0; t < depth.filter; ++t) {
    const int64_t d = depth.input(z, t);
    for (int64_t r = 0; r < height.filter; ++r, number += static_cast<int32_t>(width.filter)) {
      const int64_t h = height.input(p, r);
      if (!depth.inside(d) || !height.inside(h)) continue;
      for (int64_t s = 0; s < width.filter; ++s) visit(number + static_cast<int32_t>(s), d, h, s);
    }
  }
}

// Writes `count` lanes whose outputs lie `step` apart; lane i's window begins at the flat index first + i * index_step.
template <class T>
void store(const Lanes<T>& lanes, int64_t count, T* y, int64_t y_step, int64_t* indices, int64_t indices_step,
           const std::vector<int64_t>& offsets, int64_t first, int64_t index_step) {
  for (int64_t i = 0; i < count; ++i) y[i * y_step] = lanes.best[i];
  if (indices == nullptr) return;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t tap = lanes.tap[i];
    indices[i * indices_step] = tap < 0 ? -1 : first + i * index_step + offsets[static_cast<std::size_t>(tap)];
  }
}

template <class T>
struct MaxPool {
  const PoolShape& shape;
  const Tensor<const T>& x;
  const Tensor<T>& y;
  const Tensor<int64_t>& indices;
  const std::vector<int64_t> offsets = tap_offsets(shape);

  T* y_at(int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) const {
    return y.at(n, c) + z * y.stride[2] + p * y.stride[3] + q * y.stride[4];
  }
  int64_t* index_at(int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) const {
    if (indices.data == nullptr) return nullptr;
    return indices.at(n, c) + z * indices.stride[2] + p * indices.stride[3] + q * indices.stride[4];
  }
  // The flat input index at which the window of an output begins, perhaps in the padding.
  int64_t window_begin(int64_t z, int64_t p, int64_t q) const {
    const auto& [depth, height, width] = shape.axis;
    return (depth.input(z, 0) * height.in + height.input(p, 0)) * width.in + width.input(q, 0);
  }

  // Lanes are the outputs q of one row.
  void row(int64_t n, int64_t c, int64_t z, int64_t p) const {
    const Axis& width = shape.axis[2];
    const Blocks chunks(width.out, kLanes);
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
      const Range q = chunks[chunk];
      Lanes<T> lanes;
      lanes.reset(q.size());
      for_each_tap(shape, z, p, [&](int32_t number, int64_t d, int64_t h, int64_t s) {
        const Range real = width.outputs(s);
        const int64_t begin = std::max(real.begin, q.begin), end = std::min(real.end, q.end);
        if (begin >= end) return;
        const T* cell = x.at(n, c) + d * x.stride[2] + h * x.stride[3] + width.input(begin, s) * x.stride[4];
        lanes.update({begin - q.begin, end - q.begin}, cell, width.stride * x.stride[4], number);
      });
      store(lanes, q.size(), y_at(n, c, z, p, q.begin), y.stride[4], index_at(n, c, z, p, q.begin), indices.stride[4],
            offsets, window_begin(z, p, q.begin), width.stride);
    }
  }

  // Lanes are the channels of one output.
  void channels(int64_t n, Range c, int64_t z, int64_t p, int64_t q) const {
    const Axis& width = shape.axis[2];
    Lanes<T> lanes;
    lanes.reset(c.size());
    for_each_tap(shape, z, p, [&](int32_t number, int64_t d, int64_t h, int64_t s) {
      const int64_t w = width.input(q, s);
      if (!width.inside(w)) return;
      const T* cell = x.at(n, c.begin) + d * x.stride[2] + h * x.stride[3] + w * x.stride[4];
      lanes.update({0, c.size()}, cell, x.stride[1], number);
    });
    store(lanes, c.size(), y_at(n, c.begin, z, p, q), y.stride[1], index_at(n, c.begin, z, p, q), indices.stride[1],
          offsets, window_begin(z, p, q), 0);
  }
};

constexpr double kSerialCells = 3e4;  // a smaller call is over before another thread wakes

int pool_threads(const PoolShape& s) {
  const double cells = static_cast<double>(s.n) * static_cast<double>(s.c) * static_cast<double>(s.cells());
  return cells < kSerialCells ? 1 : num_threads();
}

}  // namespace

template <class T>
void max_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<int64_t> indices) {
  const MaxPool<T> pool{s, x, y, indices};
  const auto& [depth, height, width] = s.axis;
  if (x.stride[1] == 1 && s.c > 1) {
    const Blocks blocks(s.c, kLanes);
    parallel_for(s.n * depth.out * height.out, pool_threads(s), [&](int64_t task, int) {
      const int64_t p = task % height.out, z = task / height.out % depth.out, n = task / height.out / depth.out;
      for (int64_t q = 0; q < width.out; ++q) {
        for (int64_t block = 0; block < blocks.count; ++block) pool.channels(n, blocks[block], z, p, q);
      }
    });
    return;
  }
  parallel_for(s.n * s.c, pool_threads(s), [&](int64_t plane, int) {
    for (int64_t z = 0; z < depth.out; ++z) {
      for (int64_t p = 0; p < height.out; ++p) pool.row(plane / s.c, plane % s.c, z, p);
    }
  });
}

template <class T>
void max_pool_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<const int64_t> indices, Tensor<T> dx) {
  const Extents out{s.axis[0].out, s.axis[1].out, s.axis[2].out}, in{s.axis[0].in, s.axis[1].in, s.axis[2].in};
  const int64_t cells = s.cells();
  std::atomic<bool> valid{true};
  std::atomic<int64_t> offender{0};
  parallel_for(s.n * s.c, pool_threads(s), [&](int64_t plane, int) {
    for_each_cell(indices, plane / s.c, plane % s.c, out, {0, s.pixels()}, [&](const int64_t& index, int64_t) {
      if (index >= -1 && index < cells) return;
      offender.store(index);
      valid.store(false);
    });
  });
  if (!valid) {
    throw std::invalid_argument("indices must lie in [-1, " + std::to_string(cells) +
                                "), the cells of one input plane, but one is " + std::to_string(offender));
  }

  // Channels side by side share cache lines, so a task owns a line of them.
  const bool channels_last = dx.stride[1] == 1 && s.c > 1;
  const Blocks blocks(s.c, channels_last ? 64 / static_cast<int64_t>(sizeof(T)) : 1);
  const auto joined = spatial_stride(dx, in);
  parallel_for(s.n * blocks.count, pool_threads(s), [&](int64_t task, int) {
    const int64_t n = task / blocks.count;
    const Range channels = blocks[task % blocks.count];
    for_each_run(in, {0, cells}, [&](int64_t, int64_t d, int64_t h, Range w) {
      T* row = dx.at(n, channels.begin) + d * dx.stride[2] + h * dx.stride[3];
      for (int64_t i = 0; i < w.size(); ++i) {
        for (int64_t c = 0; c < channels.size(); ++c) row[i * dx.stride[4] + c * dx.stride[1]] = T(0);
      }
    });
    for_each_run(out, {0, s.pixels()}, [&](int64_t, int64_t z, int64_t p, Range q) {
      for (int64_t i = q.begin; i < q.end; ++i) {
        for (int64_t c = channels.begin; c < channels.end; ++c) {
          const int64_t index =
              *(indices.at(n, c) + z * indices.stride[2] + p * indices.stride[3] + i * indices.stride[4]);
          if (index < 0) continue;
          const T gradient = *(dy.at(n, c) + z * dy.stride[2] + p * dy.stride[3] + i * dy.stride[4]);
          const int64_t cell = joined ? index * *joined
                                      : index / (in[1] * in[2]) * dx.stride[2] + index / in[2] % in[1] * dx.stride[3] +
                                            index % in[2] * dx.stride[4];
          *(dx.at(n, c) + cell) += gradient;
        }
      }
    });
  });
}

template void max_pool_fprop(const PoolShape&, Tensor<const float>, Tensor<float>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const double>, Tensor<double>, Tensor<int64_t>);
template void max_pool_dgrad(const PoolShape&, Tensor<const float>, Tensor<const int64_t>, Tensor<float>);
template void max_pool_dgrad(const PoolShape&, Tensor<const double>, Tensor<const int64_t>, Tensor<double>);

}  // namespace fastconv::cpu
