// Max-pooling, x[N,C,D,H,W] to y[N,C,Z,P,Q].
//
// Blocks of outputs that read real cells at the same taps are one call of a kernel. Its lanes run along q where a row
// of x is contiguous (NCHW), along c where channels are (NHWC); its rows along p or q. A lane keeps the best value and
// a code of the tap it came from: its number in the window, or its distance in the plane, since the index that users
// get is linear in the output position and the tap.
#include <limits>
#include <type_traits>

#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/scratch.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "cpu/walk/windows.hpp"
#include "threads.hpp"

namespace fastconv::cpu {
namespace {

using Position = std::array<int64_t, 5>;  // n, c, z, p, q

template <class T>
T* cell(const Tensor<T>& t, const Position& at) {
  T* found = t.data;
  for (std::size_t i = 0; i < 5; ++i) found += at[i] * t.stride[i];
  return found;
}

// Whether a later value replaces the best so far: the first NaN, else the first of the largest.
template <class T>
bool replaces(T value, T best) {
  return value > best || (value != value && best == best);
}

constexpr std::size_t kChannel = 1, kHeight = 3, kWidth = 4;  // axes of a tensor

// Calls visit(range) for the outputs along an axis: one by one at the edges, together where all taps are inside.
template <class Visit>
void for_each_alike(const Axis& axis, Visit visit) {
  const Range inner = axis.inner_outputs();
  for (int64_t o = 0; o < axis.out;) {
    const int64_t end = o == inner.begin && inner.size() > 0 ? inner.end : o + 1;
    visit(Range{o, end});
    o = end;
  }
}

using tuning::pool::kHeldLanes;

// The maxima and, as one of two or neither, where they came from.
template <class T>
struct Maxima {
  Tensor<T> y;
  Tensor<int64_t> indices;
  Tensor<uint8_t> offsets;
  bool rectified;
};

// The taps of one block, of which each thread makes a list.
struct Taps {
  RowTap* taps;
  int32_t* codes;
  int64_t count = 0;

  void add(const RowTap& tap, int32_t code) {
    codes[count] = code;
    taps[count++] = tap;
  }
};

template <class T>
class MaxPool {
 public:
  MaxPool(const PoolShape& shape, const Tensor<const T>& x, const Maxima<T>& result)
      : shape_(shape),
        x_(x),
        result_(result),
        windows_(shape.axis, x.stride),
        flat_(shape.axis, {0, 0, shape.axis[1].in * shape.axis[2].in, shape.axis[2].in, 1}),
        lanes_(x.stride[kChannel] == 1 && shape.c > 1 ? kChannel : kWidth) {
    const auto side_by_side = [&](const auto& t) { return t.data == nullptr || t.stride[lanes_] == 1; };
    direct_ = side_by_side(result.y) && side_by_side(result.indices) && side_by_side(result.offsets);
    const bool distances = direct_ && result.indices.data != nullptr;
    const int64_t span = flat_.count() > 0 ? flat_.row_taps()[flat_.count() - 1].offset : 0;
    if (distances && span > std::numeric_limits<int32_t>::max()) direct_ = false;
    codes_.assign(flat_.numbers(), flat_.numbers() + flat_.count());
    for (std::size_t i = 0; distances && direct_ && i < codes_.size(); ++i)
      codes_[i] = static_cast<int32_t>(flat_.row_taps()[i].offset);
  }

  int64_t taps() const { return windows_.count(); }

  // All outputs of some planes.
  void planes(int64_t n, Range c, Taps& taps) const {
    for (int64_t z = 0; z < shape_.axis[0].out; ++z) {
      for_each_alike(shape_.axis[1], [&](Range p) {
        taps.count = 0;
        windows_.for_each_row_tap(z, p.begin,
                                  [&](int32_t number) { taps.add(windows_.row_taps()[number], code(number)); });
        block({n, c.begin, z, p.begin, 0}, c.size(), kHeight, p.size(), shape_.axis[2].out, taps);
      });
    }
  }

  // All channels of a row of outputs.
  void row(int64_t n, int64_t z, int64_t p, Taps& taps) const {
    for_each_alike(shape_.axis[2], [&](Range q) {
      taps.count = 0;
      windows_.for_each_pixel_tap(z, p, q.begin, [&](int32_t number) {
        taps.add({windows_.row_taps()[number].offset, 0, shape_.c}, code(number));
      });
      block({n, 0, z, p, q.begin}, 1, kWidth, q.size(), shape_.c, taps);
    });
  }

  // The only output of a row, whose window's columns are the outputs and lanes of this pool.
  void columns(int64_t n, int64_t c, int64_t z, int64_t p, Taps& taps) const {
    const int64_t columns = shape_.axis[2].out;
    taps.count = 0;
    windows_.for_each_row_tap(z, p, [&](int32_t number) { taps.add(windows_.row_taps()[number], number); });
    T best = 0;
    int64_t best_index = -1, best_number = -1;
    for (int64_t first = 0; first < columns; first += kHeldLanes) {
      const int64_t lanes = std::min(kHeldLanes, columns - first);
      Held held;
      maxima(x_.at(n, c) + windows_.origin(z, p, 0), first, lanes, taps, held);
      if (first == 0) best = held.value[0];  // the lowest value, if that column has none
      for (int64_t i = 0; i < lanes; ++i) {
        if (held.number[i] < 0) continue;
        const T value = held.value[i];
        const int64_t index = flat_.origin(z, p, first + i) + flat_.row_taps()[held.number[i]].offset;
        if (best_index >= 0 && (replaces(best, value) || (index > best_index && !replaces(value, best)))) continue;
        best = value;
        best_index = index;
        best_number = held.number[i] * columns + first + i;
      }
    }
    const Position at{n, c, z, p, 0};
    *cell(result_.y, at) = best;
    if (result_.indices.data != nullptr) *cell(result_.indices, at) = best_index;
    if (result_.offsets.data != nullptr) *cell(result_.offsets, at) = offset_of(best_number, best);
  }

 private:
  // Maxima that cannot be stored where the kernel makes them, and the numbers of their taps.
  struct Held {
    alignas(kCacheLine) T value[kHeldLanes];
    int64_t number[kHeldLanes];
  };

  int32_t code(int32_t number) const { return codes_[static_cast<std::size_t>(number)]; }
  uint8_t offset_of(int64_t number, T value) const {
    return number < 0 || (result_.rectified && !(value > 0)) ? kNoTap : static_cast<uint8_t>(number);
  }
  // The distance in x between neighbouring outputs along an axis, and in flat indices.
  int64_t step(std::size_t axis, int64_t stride) const {
    return axis == kChannel ? stride : shape_.axis[axis - 2].stride * stride;
  }
  int64_t x_step(std::size_t axis) const { return step(axis, x_.stride[axis]); }
  int64_t index_step(std::size_t axis) const {
    return axis == kChannel ? 0 : step(axis, axis == kHeight ? shape_.axis[2].in : 1);
  }

  void block(const Position& at, int64_t planes, std::size_t row_axis, int64_t rows, int64_t lanes,
             const Taps& taps) const {
    const T* x = x_.at(at[0], at[1]) + windows_.origin(at[2], at[3], at[4]);
    const Tensor<T>& y = result_.y;
    if (!direct_) {
      for (int64_t i = 0; i < planes; ++i) {
        scatter(x + i * x_.stride[kChannel], {at[0], at[1] + i, at[2], at[3], at[4]}, row_axis, rows, lanes, taps);
      }
      return;
    }
    const bool bytes = result_.offsets.data != nullptr, indices = result_.indices.data != nullptr;
    const auto& where = bytes ? result_.offsets.stride : result_.indices.stride;
    pool_kernels<T>().maxima({.planes = planes,
                              .rows = rows,
                              .lanes = lanes,
                              .x = x,
                              .x_plane = x_.stride[kChannel],
                              .x_row = x_step(row_axis),
                              .x_step = x_step(lanes_),
                              .taps = taps.taps,
                              .codes = taps.codes,
                              .tap_count = taps.count,
                              .y = cell(y, at),
                              .y_plane = y.stride[kChannel],
                              .y_row = y.stride[row_axis],
                              .offsets = bytes ? cell(result_.offsets, at) : nullptr,
                              .indices = indices ? cell(result_.indices, at) : nullptr,
                              .where_plane = where[kChannel],
                              .where_row = where[row_axis],
                              .index = flat_.origin(at[2], at[3], at[4]),
                              .index_row = index_step(row_axis),
                              .index_step = index_step(lanes_),
                              .rectified = result_.rectified});
  }

  // Some lanes of a row, into the held. The codes are numbers.
  void maxima(const T* x, int64_t first, int64_t lanes, const Taps& taps, Held& held) const {
    for (int64_t t = 0; t < taps.count; ++t) {
      taps.taps[t].begin -= first;
      taps.taps[t].end -= first;
    }
    pool_kernels<T>().maxima({.planes = 1,
                              .rows = 1,
                              .lanes = lanes,
                              .x = x + first * x_step(lanes_),
                              .x_plane = 0,
                              .x_row = 0,
                              .x_step = x_step(lanes_),
                              .taps = taps.taps,
                              .codes = taps.codes,
                              .tap_count = taps.count,
                              .y = held.value,
                              .y_plane = 0,
                              .y_row = 0,
                              .offsets = nullptr,
                              .indices = held.number,
                              .where_plane = 0,
                              .where_row = 0,
                              .index = 0,
                              .index_row = 0,
                              .index_step = 0,
                              .rectified = false});
    for (int64_t t = 0; t < taps.count; ++t) {
      taps.taps[t].begin += first;
      taps.taps[t].end += first;
    }
  }

  // block() by way of maxima that are held, for results whose lanes do not lie side by side.
  void scatter(const T* x, Position at, std::size_t row_axis, int64_t rows, int64_t lanes, const Taps& taps) const {
    Held held;
    for (int64_t row = 0; row < rows; ++row, ++at[row_axis], x += x_step(row_axis)) {
      const int64_t index = flat_.origin(at[2], at[3], at[4]);
      for (int64_t first = 0; first < lanes; first += kHeldLanes) {
        const int64_t count = std::min(kHeldLanes, lanes - first);
        maxima(x, first, count, taps, held);
        Position to = at;
        to[lanes_] += first;
        for (int64_t i = 0; i < count; ++i, ++to[lanes_]) {
          const int64_t number = held.number[i];
          *cell(result_.y, to) = held.value[i];
          if (result_.offsets.data != nullptr) *cell(result_.offsets, to) = offset_of(number, held.value[i]);
          if (result_.indices.data == nullptr) continue;
          const int64_t found =
              index + (first + i) * index_step(lanes_) + flat_.row_taps()[std::max<int64_t>(number, 0)].offset;
          *cell(result_.indices, to) = number < 0 ? -1 : found;
        }
      }
    }
  }

  const PoolShape& shape_;
  const Tensor<const T>& x_;
  const Maxima<T>& result_;
  // The same windows over x, and over the flat index of a plane, where tap offsets are index differences.
  const Windows windows_, flat_;
  std::size_t lanes_;  // the axis of x along which lanes run
  bool direct_;        // whether the kernel can store the results where they belong
  std::vector<int32_t> codes_;
};

// One output whose window is too large for tables, by pieces of its rows: lanes are some channels.
template <class T>
void max_of_large_window(const PoolShape& s, const Tensor<const T>& x, const Maxima<T>& result, int64_t n, Range c,
                         const Extents& at) {
  constexpr int64_t kPiece = tuning::pool::kPieceTaps;
  const auto& [depth, height, width] = s.axis;
  RowTap taps[kPiece];
  int32_t numbers[kPiece];
  T best[kHeldLanes], other[kHeldLanes];
  int64_t index[kHeldLanes], tap[kHeldLanes];
  for (int32_t i = 0; i < kPiece; ++i) {
    taps[i] = {i * width.dilation * x.stride[4], 0, c.size()};
    numbers[i] = i;
  }
  const auto maxima = [&](const T* from, int64_t count, T* values) {
    MaxBlock<T> block{};
    block.planes = block.rows = 1;
    block.lanes = c.size();
    block.x = from;
    block.x_step = x.stride[1];
    block.taps = taps;
    block.codes = numbers;
    block.tap_count = count;
    block.y = values;
    block.indices = tap;
    pool_kernels<T>().maxima(block);
  };
  std::fill_n(index, kHeldLanes, -1);
  maxima(x.data, 0, best);  // no tap: the lowest value

  const Range ts = depth.taps(at[0]), rs = height.taps(at[1]), ss = width.taps(at[2]);
  for (int64_t row = 0; row < ts.size() * rs.size(); ++row) {
    const int64_t d = depth.input(at[0], ts.begin + row / rs.size()),
                  h = height.input(at[1], rs.begin + row % rs.size());
    for (int64_t first = ss.begin; first < ss.end; first += kPiece) {
      const int64_t w = width.input(at[2], first);
      maxima(cell(x, {n, c.begin, d, h, w}), std::min(kPiece, ss.end - first), other);
      for (int64_t i = 0; i < c.size(); ++i) {
        if (index[i] >= 0 && !replaces(other[i], best[i])) continue;
        best[i] = other[i];
        index[i] = (d * height.in + h) * width.in + w + tap[i] * width.dilation;
      }
    }
  }
  for (int64_t i = 0; i < c.size(); ++i) {
    const Position place{n, c.begin + i, at[0], at[1], at[2]};
    *cell(result.y, place) = best[i];
    if (result.indices.data != nullptr) *cell(result.indices, place) = index[i];
  }
}

template <class T>
void max_pool(const PoolShape& s, const Tensor<const T>& x, const Maxima<T>& result) {
  if (s.n * s.c * s.pixels() == 0) return;
  const auto& [depth, height, width] = s.axis;
  const bool channels_last = x.stride[kChannel] == 1 && s.c > 1;
  const bool columns = !channels_last && width.out == 1 && width.filter >= tuning::pool::kManyColumns;
  PoolShape walked = s;
  if (columns)
    walked.axis[2] = {.in = width.in, .stride = width.dilation, .pad_begin = width.pad_begin, .out = width.filter};
  if (walked.axis[0].filter * walked.axis[1].filter * walked.axis[2].filter > tuning::pool::kTableTaps) {
    const Blocks blocks(s.c, kHeldLanes);
    parallel_for(s.n * blocks.count * s.pixels(), pool_threads(s), [&](int64_t task, int) noexcept {
      const int64_t pixel = task % s.pixels(), block = task / s.pixels();
      const Extents at{pixel / width.out / height.out, pixel / width.out % height.out, pixel % width.out};
      max_of_large_window(s, x, result, block / blocks.count, blocks[block % blocks.count], at);
    });
    return;
  }
  const MaxPool<T> pool(walked, x, result);
  Scratch scratch;
  const auto lists = scratch.each<RowTap>(pool.taps());
  const auto codes = scratch.each<int32_t>(pool.taps());
  scratch.fit(kUnlimited, pool_threads(s), "max-pooling");
  const Workspace memory(scratch.bytes());
  const Arrays at(scratch, memory.at<std::byte>(0));
  const int threads = scratch.threads();
  const auto taps_of = [&](int slot) { return Taps{at(lists, slot), at(codes, slot)}; };
  if (channels_last) {
    parallel_for(s.n * depth.out * height.out, threads, [&](int64_t task, int slot) noexcept {
      Taps taps = taps_of(slot);
      pool.row(task / height.out / depth.out, task / height.out % depth.out, task % height.out, taps);
    });
    return;
  }
  const Blocks blocks(s.c, tuning::pool::kTaskPlaneCells / std::max<int64_t>(1, s.cells()));
  parallel_for(s.n * blocks.count, threads, [&](int64_t task, int slot) noexcept {
    Taps taps = taps_of(slot);
    const int64_t n = task / blocks.count;
    const Range channels = blocks[task % blocks.count];
    if (!columns) return pool.planes(n, channels, taps);
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      for (int64_t row = 0; row < depth.out * height.out; ++row)
        pool.columns(n, c, row / height.out, row % height.out, taps);
    }
  });
}

}  // namespace

template <class T>
void max_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<int64_t> indices) {
  max_pool<T>(s, x, {y, indices, {}, false});
}
template <class T>
void max_pool_offsets_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Tensor<uint8_t> offsets,
                            bool rectified) {
  max_pool<T>(s, x, {y, {}, offsets, rectified});
}

template void max_pool_fprop(const PoolShape&, Tensor<const float>, Tensor<float>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const double>, Tensor<double>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int8_t>, Tensor<int8_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const uint8_t>, Tensor<uint8_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int32_t>, Tensor<int32_t>, Tensor<int64_t>);
template void max_pool_fprop(const PoolShape&, Tensor<const int64_t>, Tensor<int64_t>, Tensor<int64_t>);
template void max_pool_offsets_fprop(const PoolShape&, Tensor<const float>, Tensor<float>, Tensor<uint8_t>, bool);
template void max_pool_offsets_fprop(const PoolShape&, Tensor<const double>, Tensor<double>, Tensor<uint8_t>, bool);

}  // namespace fastconv::cpu
