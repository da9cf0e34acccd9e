// How volumes are walked: blocks of them, runs of a row, axes that lie in memory as one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>

#include "cpu/runtime/thread_pool.hpp"
#include "ops.hpp"

namespace fastconv::cpu {

using Extents = std::array<int64_t, 3>;  // D, H, W or Z, P, Q or T, R, S

inline Extents in_extents(const ConvShape& s) { return {s.axis[0].in, s.axis[1].in, s.axis[2].in}; }
inline Extents out_extents(const ConvShape& s) { return {s.axis[0].out, s.axis[1].out, s.axis[2].out}; }
inline Extents filter_extents(const ConvShape& s) { return {s.axis[0].filter, s.axis[1].filter, s.axis[2].filter}; }
constexpr int64_t volume(const Extents& e) { return e[0] * e[1] * e[2]; }

// An extent cut into equal blocks, the last one perhaps shorter; at least one block, which may be empty.
struct Blocks {
  int64_t extent, size, count;

  Blocks(int64_t extent_, int64_t wanted_size) : extent(extent_) {
    const int64_t wanted_count = std::max<int64_t>(1, ceil_div(extent, std::max<int64_t>(1, wanted_size)));
    size = std::max<int64_t>(1, ceil_div(extent, wanted_count));
    count = std::max<int64_t>(1, ceil_div(extent, size));
  }
  Range operator[](int64_t i) const { return {i * size, std::min(extent, (i + 1) * size)}; }
};

// The stride of several axes {extent, stride}, inner first, walked as one; none if they do not lie that way.
inline std::optional<int64_t> joined_stride(std::initializer_list<std::array<int64_t, 2>> axes) {
  std::optional<int64_t> unit;
  int64_t span = 1;
  for (const auto& [extent, stride] : axes) {
    if (extent == 1) continue;
    if (!unit) unit = stride;
    if (stride != *unit * span) return std::nullopt;
    span *= extent;
  }
  return unit.value_or(1);
}

template <class T>
std::optional<int64_t> spatial_stride(const Tensor<T>& t, const Extents& e) {
  return joined_stride({{e[2], t.stride[4]}, {e[1], t.stride[3]}, {e[0], t.stride[2]}});
}

// From one pixel of a batch [n, ., e] to the next, if all are as far apart.
template <class T>
std::optional<int64_t> pixel_step(const Tensor<T>& t, int64_t n, const Extents& e) {
  return joined_stride({{e[2], t.stride[4]}, {e[1], t.stride[3]}, {e[0], t.stride[2]}, {n, t.stride[0]}});
}

// Channels that lie side by side: those of a pixel are a run.
inline bool channels_contiguous(int64_t channel_stride, int64_t channels) {
  return channel_stride == 1 && channels > 1;
}

// Cuts a block of flat positions of a volume into runs along its last axis: visit(offset in the block, z, p, run of q).
template <class Visit>
void for_each_run(const Extents& extents, Range block, Visit visit) {
  if (block.size() <= 0) return;
  if (extents[0] * extents[1] == 1) return visit(0, 0, 0, block);  // without the divisions
  int64_t q = block.begin % extents[2], p = block.begin / extents[2] % extents[1],
          z = block.begin / extents[2] / extents[1];
  for (int64_t i = block.begin; i < block.end; q = 0) {
    const Range run{q, std::min(extents[2], q + block.end - i)};
    visit(i - block.begin, z, p, run);
    i += run.size();
    if (++p == extents[1]) {
      p = 0;
      ++z;
    }
  }
}

// visit(cell, i) for the i-th position of a block of one channel's plane.
template <class T, class Visit>
void for_each_cell(const Tensor<T>& t, int64_t n, int64_t c, const Extents& extents, Range block, Visit visit) {
  T* plane = t.at(n, c);
  for_each_run(extents, block, [&](int64_t offset, int64_t z, int64_t p, Range q) {
    T* cell = plane + z * t.stride[2] + p * t.stride[3] + q.begin * t.stride[4];
    for (int64_t i = 0; i < q.size(); ++i) visit(cell[i * t.stride[4]], offset + i);
  });
}

// Sets a whole tensor [rows, channels, extents] to value(channel), along its contiguous axis.
template <class T, class Value>
void fill(const Tensor<T>& t, int64_t rows, int64_t channels, const Extents& extents, Value value) {
  const bool pixels = t.stride[1] == 1;
  const int64_t parts = pixels ? extents[0] * extents[1] : channels, cells = rows * channels * volume(extents);
  parallel_for(rows * parts, cells < kSerialFill ? 1 : num_threads(), [&](int64_t i, int) noexcept {
    const int64_t n = i / parts, part = i % parts;
    if (pixels) {
      for_each_cell(t, n, 0, extents, {part * extents[2], (part + 1) * extents[2]}, [&](T& cell, int64_t) {
        for (int64_t c = 0; c < channels; ++c) (&cell)[c] = value(c);
      });
      return;
    }
    const T channel = value(part);
    if (spatial_stride(t, extents) == 1) {
      std::fill_n(t.at(n, part), volume(extents), channel);
    } else {
      for_each_cell(t, n, part, extents, {0, volume(extents)}, [&](T& cell, int64_t) { cell = channel; });
    }
  });
}

}  // namespace fastconv::cpu
