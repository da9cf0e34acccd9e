// How the outputs of direct convolution are cut into blocks, each with a small copy of what it reads.
#pragma once

#include <algorithm>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/walk/patches.hpp"

namespace fastconv::cpu::direct {

inline constexpr int64_t kStageBytes = 512 << 10;       // part of a second-level cache
inline constexpr int64_t kMaxStage = int64_t{1} << 31;  // elements that 32-bit offsets reach
inline constexpr int64_t kMinPixels = 28;               // of a task, each of which reads all filters

inline int threads_for(const ConvShape& s) { return cpu::threads_for(s.flops()); }

// Cells that some neighbouring outputs span along one axis.
inline int64_t span(const Axis& a, int64_t outputs) { return (outputs - 1) * a.stride + a.window(); }

// Outputs along an axis whose cells fit the cache, `step` elements each.
template <class T>
int64_t fitting(const Axis& a, int64_t step) {
  const int64_t cells = kStageBytes / (std::max<int64_t>(1, step) * static_cast<int64_t>(sizeof(T)));
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

// Few cells of a filter, in and to planes: outputs of a row as lanes (direct_planes.cpp).
template <class T>
bool planes_serve(const ConvShape& s, const Tensor<const T>& x, const Tensor<T>& y);
template <class T>
void correlate_planes(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w,
                      const Vector<const T>& bias, bool relu, const Tensor<T>& y, std::size_t workspace_limit);
template <class T>
bool planes_serve_reduction(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& dy);
template <class T>
void reduce_planes(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
                   std::size_t workspace_limit);

}  // namespace fastconv::cpu::direct
