// Max-pooling, x[N,C,D,H,W] to y[N,C,Z,P,Q].
//
// The outputs of a row are lanes that advance together through the taps of their windows: along q where a row is
// contiguous (NCHW), along c where channels are (NHWC). A lane keeps the best value and the number of the tap it came
// from; the flat input index is linear in the output position and the tap, so it is made once, at the end.
#include <atomic>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "isa.hpp"
#include "patches.hpp"
#include "pool.hpp"
#include "windows.hpp"
#include "workspace.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kTableTaps = 1 << 16;  // of windows with more, there are no tables: they would outgrow the caches

template <class T>
const PoolKernels<T>& kernel() {
  if constexpr (std::is_same_v<T, float>) return kernels().pool32;
  if constexpr (std::is_same_v<T, double>) return kernels().pool64;
  if constexpr (std::is_same_v<T, int8_t>) return kernels().pool_int8;
  if constexpr (std::is_same_v<T, uint8_t>) return kernels().pool_uint8;
  if constexpr (std::is_same_v<T, int32_t>) return kernels().pool_int32;
  if constexpr (std::is_same_v<T, int64_t>) return kernels().pool_int64;
}

template <class U>
U* cell(const Tensor<U>& t, const std::array<int64_t, 5>& at) {
  U* found = t.data;
  for (std::size_t i = 0; i < 5; ++i) found += at[i] * t.stride[i];
  return found;
}

// Whether a later value replaces the best so far: the first NaN, else the first of the largest.
template <class V>
bool replaces(V value, V best) {
  return value > best || (value != value && best == best);
}

template <class T>
struct MaxPool {
  const PoolShape& shape;
  const Tensor<const T>& x;
  const Tensor<T>& y;
  const Tensor<int64_t>& indices;
  // The same windows over x, and over the flat index of a plane, where tap offsets are index differences.
  const Windows windows{shape.axis, x.stride};
  const Windows flat{shape.axis, {0, 0, shape.axis[1].in * shape.axis[2].in, shape.axis[2].in, 1}};

  // One thread's maxima, and the taps of outputs at the edge.
  struct Scratch {
    alignas(kCacheLine) Lane<T> best[kPoolLanes];
    int32_t tap[kPoolLanes];
    RowTap* taps;
    int32_t* numbers;
  };

  // Lanes are the outputs q of one row.
  void row(int64_t n, int64_t c, int64_t z, int64_t p, Scratch& scratch) const {
    const Axis& width = shape.axis[2];
    for (int64_t first = 0; first < width.out; first += kPoolLanes) {
      const int64_t lanes = std::min(kPoolLanes, width.out - first);
      row_maxima(n, c, z, p, first, lanes, scratch);
      store(scratch, lanes, {n, c, z, p, first}, 4, flat.origin(z, p, first), width.stride);
    }
  }

  // The only output of a row, whose window's columns are the outputs and lanes of this pool.
  void columns(int64_t n, int64_t c, int64_t z, int64_t p, Scratch& scratch) const {
    const int64_t columns = shape.axis[2].out;
    Lane<T> best = 0;
    int64_t best_index = -1;
    for (int64_t first = 0; first < columns; first += kPoolLanes) {
      const int64_t lanes = std::min(kPoolLanes, columns - first);
      row_maxima(n, c, z, p, first, lanes, scratch);
      if (first == 0) best = scratch.best[0];  // the lowest value, if that column has none
      for (int64_t i = 0; i < lanes; ++i) {
        if (scratch.tap[i] < 0) continue;
        const Lane<T> value = scratch.best[i];
        const int64_t index = flat.origin(z, p, first + i) + flat.row_taps()[scratch.tap[i]].offset;
        if (best_index >= 0 && (replaces(best, value) || (index > best_index && !replaces(value, best)))) continue;
        best = value;
        best_index = index;
      }
    }
    *cell(y, {n, c, z, p, 0}) = static_cast<T>(best);
    if (indices.data != nullptr) *cell(indices, {n, c, z, p, 0}) = best_index;
  }

  // Lanes are the channels of one output.
  void channels(int64_t n, Range c, int64_t z, int64_t p, int64_t q, Scratch& scratch) const {
    int64_t count = 0;
    windows.for_each_pixel_tap(z, p, q, [&](int32_t number) {
      scratch.numbers[count] = number;
      scratch.taps[count++] = {windows.row_taps()[number].offset, 0, c.size()};
    });
    const T* src = x.at(n, c.begin) + windows.origin(z, p, q);
    kernel<T>().max_row(scratch.best, scratch.tap, c.size(), src, scratch.taps, scratch.numbers, count, 1);
    store(scratch, c.size(), {n, c.begin, z, p, q}, 1, flat.origin(z, p, q), 0);
  }

 private:
  // Some lanes of a row, from the output `first` on, into the scratch.
  void row_maxima(int64_t n, int64_t c, int64_t z, int64_t p, int64_t first, int64_t lanes, Scratch& scratch) const {
    const int64_t step = shape.axis[2].stride * x.stride[4];
    const T* src = x.at(n, c) + windows.origin(z, p, first);
    if (first == 0 && windows.whole_row(z, p)) {
      return kernel<T>().max_row(scratch.best, scratch.tap, lanes, src, windows.row_taps(), windows.numbers(),
                                 windows.count(), step);
    }
    int64_t count = 0;
    windows.for_each_row_tap(z, p, [&](int32_t number) {
      const RowTap& tap = windows.row_taps()[number];
      scratch.numbers[count] = number;
      scratch.taps[count++] = {tap.offset, tap.begin - first, tap.end - first};
    });
    kernel<T>().max_row(scratch.best, scratch.tap, lanes, src, scratch.taps, scratch.numbers, count, step);
  }

  // Writes lanes along one axis of y from `at`; lane i's window begins at the flat index first + i * index_step.
  void store(const Scratch& from, int64_t lanes, const std::array<int64_t, 5>& at, std::size_t axis, int64_t first,
             int64_t index_step) const {
    T* out = cell(y, at);
    const int64_t out_step = y.stride[axis];
    for (int64_t i = 0; i < lanes; ++i) out[i * out_step] = static_cast<T>(from.best[i]);
    if (indices.data == nullptr) return;
    int64_t* index = cell(indices, at);
    const int64_t indices_step = indices.stride[axis];
    for (int64_t i = 0; i < lanes; ++i) {
      const int32_t tap = from.tap[i];
      const int64_t found = first + i * index_step + flat.row_taps()[tap < 0 ? 0 : tap].offset;
      index[i * indices_step] = tap < 0 ? -1 : found;
    }
  }
};

// One output whose window is too large for tables, by pieces of its rows: lanes are some channels.
template <class T>
void max_of_large_window(const PoolShape& s, const Tensor<const T>& x, const Tensor<T>& y,
                         const Tensor<int64_t>& indices, int64_t n, Range c, const Extents& at) {
  constexpr int64_t kPiece = 256;
  const auto& [depth, height, width] = s.axis;
  RowTap taps[kPiece];
  int32_t numbers[kPiece], tap[kPoolLanes];
  Lane<T> best[kPoolLanes], other[kPoolLanes];
  int64_t index[kPoolLanes];
  for (int32_t i = 0; i < kPiece; ++i) {
    taps[i] = {i * width.dilation * x.stride[4], 0, c.size()};
    numbers[i] = i;
  }
  std::fill_n(index, kPoolLanes, -1);
  kernel<T>().max_row(best, tap, c.size(), x.data, taps, numbers, 0, 0);  // no tap: the lowest value

  const Range ts = depth.taps(at[0]), rs = height.taps(at[1]), ss = width.taps(at[2]);
  for (int64_t row = 0; row < ts.size() * rs.size(); ++row) {
    const int64_t d = depth.input(at[0], ts.begin + row / rs.size()),
                  h = height.input(at[1], rs.begin + row % rs.size());
    for (int64_t first = ss.begin; first < ss.end; first += kPiece) {
      const int64_t w = width.input(at[2], first);
      kernel<T>().max_row(other, tap, c.size(), cell(x, {n, c.begin, d, h, w}), taps, numbers,
                          std::min(kPiece, ss.end - first), x.stride[1]);
      for (int64_t i = 0; i < c.size(); ++i) {
        if (index[i] >= 0 && !replaces(other[i], best[i])) continue;
        best[i] = other[i];
        index[i] = (d * height.in + h) * width.in + w + tap[i] * width.dilation;
      }
    }
  }
  for (int64_t i = 0; i < c.size(); ++i) {
    const std::array<int64_t, 5> place{n, c.begin + i, at[0], at[1], at[2]};
    *cell(y, place) = static_cast<T>(best[i]);
    if (indices.data != nullptr) *cell(indices, place) = index[i];
  }
}

// dx = 0 for some channels of one image.
template <class T>
void clear(const Tensor<T>& dx, int64_t n, Range channels, const Extents& in, bool whole_planes) {
  if (whole_planes && channels.size() == 1) {
    std::fill_n(dx.at(n, channels.begin), volume(in), T(0));
    return;
  }
  for_each_run(in, {0, volume(in)}, [&](int64_t, int64_t d, int64_t h, Range w) {
    T* row = dx.at(n, channels.begin) + d * dx.stride[2] + h * dx.stride[3];
    for (int64_t i = 0; i < w.size(); ++i, row += dx.stride[4]) {
      for (int64_t c = 0; c < channels.size(); ++c) row[c * dx.stride[1]] = T(0);
    }
  });
}

}  // namespace

template <class T>
void max_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<int64_t> indices) {
  const auto& [depth, height, width] = s.axis;
  const bool channels_last = x.stride[1] == 1 && s.c > 1, columns = !channels_last && width.out == 1;
  const int threads = pool_threads(s);
  const Blocks blocks(s.c, kPoolLanes);
  PoolShape walked = s;
  if (columns)
    walked.axis[2] = {.in = width.in, .stride = width.dilation, .pad_begin = width.pad_begin, .out = width.filter};
  if (walked.axis[0].filter * walked.axis[1].filter * walked.axis[2].filter > kTableTaps) {
    parallel_for(s.n * blocks.count * s.pixels(), threads, [&](int64_t task, int) {
      const int64_t pixel = task % s.pixels(), block = task / s.pixels();
      const Extents at{pixel / width.out / height.out, pixel / width.out % height.out, pixel % width.out};
      max_of_large_window(s, x, y, indices, block / blocks.count, blocks[block % blocks.count], at);
    });
    return;
  }
  const MaxPool<T> pool{walked, x, y, indices};
  const std::size_t tap_bytes = array_bytes(pool.windows.count(), 1, sizeof(RowTap));
  const std::size_t own = tap_bytes + array_bytes(pool.windows.count(), 1, sizeof(int32_t));
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const auto use_slot = [&](typename MaxPool<T>::Scratch& scratch, int slot) {
    scratch.taps = memory.at<RowTap>(static_cast<std::size_t>(slot) * own);
    scratch.numbers = memory.at<int32_t>(static_cast<std::size_t>(slot) * own + tap_bytes);
  };
  if (channels_last) {
    parallel_for(s.n * depth.out * height.out, threads, [&](int64_t task, int slot) {
      const int64_t p = task % height.out, z = task / height.out % depth.out, n = task / height.out / depth.out;
      typename MaxPool<T>::Scratch scratch;
      use_slot(scratch, slot);
      for (int64_t q = 0; q < width.out; ++q) {
        for (int64_t block = 0; block < blocks.count; ++block) pool.channels(n, blocks[block], z, p, q, scratch);
      }
    });
    return;
  }
  parallel_for(s.n * s.c, threads, [&](int64_t plane, int slot) {
    typename MaxPool<T>::Scratch scratch;
    use_slot(scratch, slot);
    for (int64_t row = 0; row < depth.out * height.out; ++row) {
      const int64_t n = plane / s.c, c = plane % s.c, z = row / height.out, p = row % height.out;
      if (columns) {
        pool.columns(n, c, z, p, scratch);
      } else {
        pool.row(n, c, z, p, scratch);
      }
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
    clear(dx, n, channels, in, joined == 1);
    for_each_run(out, {0, s.pixels()}, [&](int64_t, int64_t z, int64_t p, Range q) {
      const T* gradients = dy.at(n, channels.begin) + z * dy.stride[2] + p * dy.stride[3];
      const int64_t* cells_of = indices.at(n, channels.begin) + z * indices.stride[2] + p * indices.stride[3];
      T* plane = dx.at(n, channels.begin);
      for (int64_t i = q.begin; i < q.end; ++i) {
        for (int64_t c = 0; c < channels.size(); ++c) {
          const int64_t index = cells_of[i * indices.stride[4] + c * indices.stride[1]];
          if (index < 0) continue;
          const int64_t cell = joined ? index * *joined
                                      : index / (in[1] * in[2]) * dx.stride[2] + index / in[2] % in[1] * dx.stride[3] +
                                            index % in[2] * dx.stride[4];
          plane[c * dx.stride[1] + cell] += gradients[i * dy.stride[4] + c * dy.stride[1]];
        }
      }
    });
  });
}

template void max_pool_fprop(const PoolShape&, Tensor<const float>, Tensor<float>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const double>, Tensor<double>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int8_t>, Tensor<int8_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const uint8_t>, Tensor<uint8_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int32_t>, Tensor<int32_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int64_t>, Tensor<int64_t>, Tensor<int64_t>);
template void max_pool_dgrad(const PoolShape&, Tensor<const float>, Tensor<const int64_t>, Tensor<float>);
template void max_pool_dgrad(const PoolShape&, Tensor<const double>, Tensor<const int64_t>, Tensor<double>);

}  // namespace fastconv::cpu
