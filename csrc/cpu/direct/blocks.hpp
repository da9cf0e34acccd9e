// How the outputs of direct convolution are cut into blocks, each with a small copy of what it reads.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"

namespace fastconv::cpu::direct {

inline constexpr int64_t kMaxStage = std::numeric_limits<int32_t>::max();  // elements: offsets have 32 bits

// Outputs along an axis whose cells fit the cache, `step` elements each.
template <class T>
int64_t fitting(const Axis& a, int64_t step) {
  const int64_t cells = tuning::direct::kStageBytes / (std::max<int64_t>(1, step) * static_cast<int64_t>(sizeof(T)));
  return std::max<int64_t>(1, (cells - a.window()) / a.stride + 1);
}

// A block of the outputs of one image and depth.
struct Block {
  int64_t n, z;
  Range rows, columns;

  template <class Stage>
  Block(const Stage& stage, int64_t unit) {
    const int64_t depth = stage.s.axis[0].out, plane = unit / stage.column_blocks.count / stage.row_blocks.count;
    columns = stage.column_blocks[unit % stage.column_blocks.count];
    rows = stage.row_blocks[unit / stage.column_blocks.count % stage.row_blocks.count];
    z = plane % depth;
    n = plane / depth;
  }
};

}  // namespace fastconv::cpu::direct
