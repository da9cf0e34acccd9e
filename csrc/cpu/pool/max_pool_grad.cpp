// The input gradient of max-pooling: from flat indices, which may be anyone's, by adding each dy at its cell; from the
// taps' numbers by gathering, so that every cell of dx is written once and by whole vectors.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/runtime/isa.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "threads.hpp"

namespace fastconv::cpu {
namespace {

Extents in_extents(const PoolShape& s) { return {s.axis[0].in, s.axis[1].in, s.axis[2].in}; }
Extents out_extents(const PoolShape& s) { return {s.axis[0].out, s.axis[1].out, s.axis[2].out}; }

// The inputs first, first + step, ..., `count` of them along an axis, each of which the same taps reach: tap f reads
// input number i at the output i + shift.
struct Reached {
  int64_t tap, shift;
};
struct Alike {
  int64_t first, step, count;
  std::vector<Reached> taps;  // in the order of the outputs
};

// What tap f of a phase reaches: inputs number [begin, end) of the phase.
struct PhaseTap {
  Reached tap;
  Range reach;
};

std::vector<PhaseTap> phase_taps(const Axis& axis, int64_t phase) {
  std::vector<PhaseTap> taps;
  for (int64_t f = axis.filter; f-- > 0;) {
    const Range outputs = axis.outputs(f);
    if (outputs.size() == 0 || axis.phase_of_tap(f) != phase) continue;
    const int64_t number = axis.first_of_tap(f);
    taps.push_back({{f, outputs.begin - number}, {number, number + outputs.size()}});
  }
  return taps;
}

// The inputs of an axis, cut wherever a tap comes or goes.
std::vector<Alike> alike_inputs(const Axis& axis) {
  std::vector<Alike> all;
  for (int64_t phase = 0; phase < axis.phases(); ++phase) {
    const std::vector<PhaseTap> taps = phase_taps(axis, phase);
    std::vector<int64_t> cuts{0, axis.phase_size(phase)};
    for (const PhaseTap& t : taps) cuts.insert(cuts.end(), {t.reach.begin, t.reach.end});
    std::sort(cuts.begin(), cuts.end());
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      if (cuts[i] == cuts[i + 1]) continue;
      Alike part{phase + cuts[i] * axis.stride, axis.stride, cuts[i + 1] - cuts[i], {}};
      for (const auto& [tap, reach] : taps) {
        if (reach.begin <= cuts[i] && cuts[i] < reach.end) part.taps.push_back({tap.tap, tap.shift + cuts[i]});
      }
      all.push_back(std::move(part));
    }
  }
  return all;
}

// The part that holds input i, by its place in alike_inputs(axis), and the input's number there.
struct Place {
  std::size_t part;
  int64_t number;
};
Place part_of(const std::vector<Alike>& parts, const Axis& axis, int64_t i) {
  const auto after = [&](int64_t input,
                         const Alike& part) {  // parts are in order of their phases, then of their inputs
    const int64_t phase = input % axis.stride, other = part.first % axis.stride;
    return phase != other ? phase < other : input < part.first;
  };
  const auto found = std::upper_bound(parts.begin(), parts.end(), i, after) - 1;
  return {static_cast<std::size_t>(found - parts.begin()), (i - found->first) / axis.stride};
}

// dx from the numbers of taps.
template <class T>
class Spread {
 public:
  Spread(const PoolShape& shape, const Tensor<const T>& dy, const Tensor<const uint8_t>& offsets, const Tensor<T>& dx)
      : shape_(shape), dy_(dy), offsets_(offsets), dx_(dx) {
    for (const Axis& axis : shape.axis) parts_.push_back(alike_inputs(axis));
  }

  // Lanes are the columns of a plane, two phases of them at once where these alternate; rows are alike rows.
  void planes(int threads) const {
    const Axis& width = shape_.axis[2];
    const bool alternate = width.phases() == 2 && dx_.stride[4] == 1;
    std::vector<Block> blocks;
    for (const Alike& depth : parts_[0]) {
      for (const Alike& height : parts_[1]) {
        for (int64_t phase = 0; phase < width.phases(); phase += alternate ? 2 : 1) {
          Block block{&depth, &height, phase, width.phases(), {}, {}, alternate};
          for (int i = 0; i < (alternate ? 2 : 1); ++i) {
            block.lanes[i] = width.phase_size(phase + i);
            for_each_outer_tap(depth, height, [&](const Reached& t, const Reached& r) {
              for (const auto& [s, reach] : phase_taps(width, phase + i)) block.taps[i].push_back(tap(t, r, s, reach));
            });
          }
          blocks.push_back(std::move(block));
        }
      }
    }
    parallel_for(shape_.n * shape_.c, threads, [&](int64_t plane, int) noexcept {
      for (const Block& block : blocks) {
        for (int64_t d = 0; d < block.depth->count; ++d)
          run(block, plane / shape_.c, plane % shape_.c, {d, 0, 0}, block.height->count, 3, 4);
      }
    });
  }

  // Lanes are channels; rows are alike columns. A task is a row of an image.
  void channels(int threads) const {
    std::vector<Block> blocks;
    for (const Alike& depth : parts_[0]) {
      for (const Alike& height : parts_[1]) {
        for (const Alike& width : parts_[2]) {
          Block block{&depth, &height, width.first, width.step, {shape_.c, 0}, {}, false};
          block.rows = width.count;
          for_each_outer_tap(depth, height, [&](const Reached& t, const Reached& r) {
            for (const Reached& s : width.taps) block.taps[0].push_back(tap(t, r, s, {0, shape_.c}));
          });
          blocks.push_back(std::move(block));
        }
      }
    }
    const int64_t depth = shape_.axis[0].in, height = shape_.axis[1].in;
    parallel_for(shape_.n * depth * height, threads, [&](int64_t task, int) noexcept {
      const auto [of_depth, d] = part_of(parts_[0], shape_.axis[0], task / height % depth);
      const auto [of_height, h] = part_of(parts_[1], shape_.axis[1], task % height);
      const std::size_t first = (of_depth * parts_[1].size() + of_height) * parts_[2].size();
      for (std::size_t i = 0; i < parts_[2].size(); ++i) {
        const Block& block = blocks[first + i];
        run(block, task / height / depth, 0, {d, h, 0}, block.rows, 4, 1);
      }
    });
  }

 private:
  struct Block {
    const Alike *depth, *height;
    int64_t column, column_step, lanes[2];
    std::vector<SpreadTap> taps[2];
    bool alternate;
    int64_t rows = 0;
  };

  template <class Visit>
  static void for_each_outer_tap(const Alike& depth, const Alike& height, Visit visit) {
    for (const Reached& t : depth.taps) {
      for (const Reached& r : height.taps) visit(t, r);
    }
  }

  SpreadTap tap(const Reached& t, const Reached& r, const Reached& s, Range lanes) const {
    const auto offset = [&](const auto& of) {
      return t.shift * of.stride[2] + r.shift * of.stride[3] + s.shift * of.stride[4];
    };
    const int64_t number = (t.tap * shape_.axis[1].filter + r.tap) * shape_.axis[2].filter + s.tap;
    return {offset(dy_), offset(offsets_), lanes.begin, lanes.end, static_cast<int32_t>(number)};
  }

  // Block rows of an image's channels from c on, the first at number `at` of the depth's and height's parts.
  void run(const Block& block, int64_t n, int64_t c, const Extents& at, int64_t rows, std::size_t row_axis,
           std::size_t lane_axis) const {
    const auto origin = [&](const auto& of) { return of.at(n, c) + at[0] * of.stride[2] + at[1] * of.stride[3]; };
    const int64_t d = block.depth->first + at[0] * block.depth->step;
    const int64_t h = block.height->first + at[1] * block.height->step;
    const int64_t row_step = row_axis == 3 ? block.height->step : block.column_step;
    const int64_t lane_step = lane_axis == 4 && !block.alternate ? block.column_step : 1;
    pool_gradient_kernels<T>().spread(
        {.rows = rows,
         .lanes = {block.lanes[0], block.lanes[1]},
         .dy = origin(dy_),
         .dy_row = dy_.stride[row_axis],
         .dy_step = dy_.stride[lane_axis],
         .offsets = origin(offsets_),
         .where_row = offsets_.stride[row_axis],
         .where_step = offsets_.stride[lane_axis],
         .taps = {block.taps[0].data(), block.taps[1].data()},
         .tap_count = {static_cast<int64_t>(block.taps[0].size()), static_cast<int64_t>(block.taps[1].size())},
         .dx = dx_.at(n, c) + d * dx_.stride[2] + h * dx_.stride[3] + block.column * dx_.stride[4],
         .dx_row = row_step * dx_.stride[row_axis],
         .dx_step = lane_step * dx_.stride[lane_axis],
         .alternate = block.alternate});
  }

  const PoolShape& shape_;
  const Tensor<const T>& dy_;
  const Tensor<const uint8_t>& offsets_;
  const Tensor<T>& dx_;
  std::vector<std::vector<Alike>> parts_;  // of each axis
};

// dx = 0 for some channels of one image.
template <class T>
void clear(const Tensor<T>& dx, int64_t n, Range channels, const Extents& in) {
  for_each_run(in, {0, volume(in)}, [&](int64_t, int64_t d, int64_t h, Range w) {
    T* row = dx.at(n, channels.begin) + d * dx.stride[2] + h * dx.stride[3];
    const bool together = channels.size() == 1 || dx.stride[1] == 1;
    if (together && dx.stride[4] == channels.size()) {
      std::fill_n(row, w.size() * channels.size(), T(0));
      return;
    }
    for (int64_t i = 0; i < w.size(); ++i, row += dx.stride[4]) {
      if (together) {
        std::fill_n(row, channels.size(), T(0));
        continue;
      }
      for (int64_t c = 0; c < channels.size(); ++c) row[c * dx.stride[1]] = T(0);
    }
  });
}

// The cells that indices name: none by -1, and an error by any other outside of [0, cells).
class Cells {
 public:
  explicit Cells(int64_t count) : count_(static_cast<uint64_t>(count)) {}

  bool contain(int64_t index) const { return static_cast<uint64_t>(index) < count_; }
  void refuse(int64_t index) {
    if (index != -1) offender_.store(index, std::memory_order_relaxed);
  }
  void check() const {
    if (offender_ == -1) return;
    throw std::invalid_argument("indices must lie in [-1, " + std::to_string(count_) +
                                "), the cells of one input plane, but one is " + std::to_string(offender_));
  }

 private:
  uint64_t count_;
  std::atomic<int64_t> offender_{-1};
};

// Adds each gradient at its index's cell, gradient j at plane[j * own + index * step]; or only looks at the indices.
template <bool kAdd, class T>
void add_run(const T* gradients, const int64_t* indices, int64_t count, int64_t own, int64_t step, T* plane,
             Cells& cells) {
  for (int64_t j = 0; j < count; ++j) {
    if (cells.contain(indices[j])) {
      if (kAdd) plane[j * own + indices[j] * step] += gradients[j];
    } else {
      cells.refuse(indices[j]);
    }
  }
}

}  // namespace

template <class T>
void max_pool_offsets_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<const uint8_t> offsets, Tensor<T> dx) {
  if (s.n * s.c * s.cells() == 0) return;
  const Spread<T> spread(s, dy, offsets, dx);
  if (dx.stride[1] == 1 && s.c > 1) return spread.channels(pool_threads(s));
  spread.planes(pool_threads(s));
}

template <class T>
void max_pool_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<const int64_t> indices, Tensor<T> dx, bool fresh) {
  if (s.n * s.c == 0) return;
  Extents out = out_extents(s), in = in_extents(s);
  if (spatial_stride(dy, out) && spatial_stride(indices, out)) {  // as good as one row: no loop starts over
    dy.stride[4] = *spatial_stride(dy, out);
    indices.stride[4] = *spatial_stride(indices, out);
    out = {1, 1, volume(out)};
  }
  const auto joined = spatial_stride(dx, in);
  // The distance of a cell from its plane's first.
  const auto place = [&](int64_t index) {
    return joined ? index * *joined
                  : index / (in[1] * in[2]) * dx.stride[2] + index / in[2] % in[1] * dx.stride[3] +
                        index % in[2] * dx.stride[4];
  };
  Tensor<T> cleared = dx;
  if (joined) cleared.stride[4] = *joined;
  // Channels side by side share cache lines, so a task owns whole lines of them, all if there are images enough.
  const int threads = pool_threads(s);
  const bool channels_last = dx.stride[1] == 1 && s.c > 1;
  constexpr auto kLine = static_cast<int64_t>(kCacheLine / sizeof(T));
  const int64_t task_channels = std::max(kLine, s.c * s.n / kEnoughTasks / kLine * kLine);
  const Blocks blocks(s.c, channels_last ? task_channels : 1);
  const bool unit_rows = joined && dy.stride[4] == 1 && indices.stride[4] == 1;
  const bool unit_pixels = joined && channels_last && dy.stride[1] == 1 && indices.stride[1] == 1;
  Cells cells(s.cells());
  // Adds what a task's indices name, or only looks at them.
  const auto add = [&](auto adds, int64_t task) {
    const int64_t n = task / blocks.count;
    const Range channels = blocks[task % blocks.count];
    if (adds) clear(cleared, n, channels, joined ? Extents{1, 1, volume(in)} : in);
    T* plane = dx.at(n, channels.begin);
    for_each_run(out, {0, volume(out)}, [&](int64_t, int64_t z, int64_t p, Range q) {
      const T* gradients = dy.at(n, channels.begin) + z * dy.stride[2] + p * dy.stride[3];
      const int64_t* found = indices.at(n, channels.begin) + z * indices.stride[2] + p * indices.stride[3];
      if (channels.size() == 1 && unit_rows) return add_run<adds>(gradients, found, q.size(), 0, *joined, plane, cells);
      for (int64_t i = 0; i < q.size(); ++i, gradients += dy.stride[4], found += indices.stride[4]) {
        if (unit_pixels) {
          add_run<adds>(gradients, found, channels.size(), 1, *joined, plane, cells);
          continue;
        }
        for (int64_t c = 0; c < channels.size(); ++c) {
          const int64_t index = found[c * indices.stride[1]];
          if (cells.contain(index)) {
            if (adds) plane[c * dx.stride[1] + place(index)] += gradients[c * dy.stride[1]];
          } else {
            cells.refuse(index);
          }
        }
      }
    });
  };
  if (!fresh) {
    parallel_for(s.n * blocks.count, threads, [&](int64_t task, int) noexcept { add(std::false_type{}, task); });
    cells.check();
  }
  parallel_for(s.n * blocks.count, threads, [&](int64_t task, int) noexcept { add(std::true_type{}, task); });
  cells.check();
}

template void max_pool_offsets_dgrad(const PoolShape&, Tensor<const float>, Tensor<const uint8_t>, Tensor<float>);
template void max_pool_offsets_dgrad(const PoolShape&, Tensor<const double>, Tensor<const uint8_t>, Tensor<double>);
template void max_pool_dgrad(const PoolShape&, Tensor<const float>, Tensor<const int64_t>, Tensor<float>, bool);
template void max_pool_dgrad(const PoolShape&, Tensor<const double>, Tensor<const int64_t>, Tensor<double>, bool);

}  // namespace fastconv::cpu
