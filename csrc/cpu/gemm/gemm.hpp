// The matrix product that every pass, Winograd and the dense layer share.
//
//               columns           Panels of `nr` columns of the right operand and of `mr` rows of the left one are
//              +-------+          packed, [terms][nr] and [terms][mr]. A tile [mr, nr] of the result is one call of
//        terms | right |          the micro-kernel, which keeps it in registers over a block of terms. Only packing
//              +-------+          reads an operand that lies otherwise: an image's patches are im2col that never
//       terms                     exists. What lies in rows already is read in place, and packed by the first tile
//       +-----+-------+           or not at all.
//  rows |left |result |
//       +-----+-------+           Goto and van de Geijn, ACM TOMS 34 (2008); Van Zee and van de Geijn, TOMS 41 (2015).
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "cpu/runtime/isa.hpp"
#include "ops.hpp"

namespace fastconv::cpu {

inline constexpr int kMaxWidth = 64;      // lanes of the widest panel
inline constexpr int kMaxTile = 14 * 32;  // elements of the largest tile

// Term t of lane i is data[i * lane_stride + t * term_stride].
template <class T>
struct Strided {
  const T* data = nullptr;
  int64_t lane_stride = 0, term_stride = 0;
};

// One side of a product: its lanes, which are rows of the left one and columns of the right one, by terms.
template <class T>
class Operand {
 public:
  virtual ~Operand() = default;
  // panels[lanes / width][terms][width], zeros after the last lane; `scratch` has scratch_bytes(width).
  virtual void pack(T* panels, int width, Range lanes, Range terms, std::byte* scratch) const noexcept = 0;
  // For panels of this width or narrower ones. std::bad_alloc if no memory could hold it.
  virtual std::size_t scratch_bytes(int /*width*/) const { return 0; }
  // Some lanes where they lie; null if neither they nor the terms are contiguous.
  virtual Strided<T> in_place(Range /*lanes*/) const noexcept { return {}; }
};

template <class T>
class MatrixOperand final : public Operand<T> {
 public:
  MatrixOperand(const T* data, int64_t lane_stride, int64_t term_stride)
      : data_(data), lane_stride_(lane_stride), term_stride_(term_stride) {}
  void pack(T* panels, int width, Range lanes, Range terms, std::byte* scratch) const noexcept override;
  Strided<T> in_place(Range lanes) const noexcept override {
    if (lane_stride_ != 1 && term_stride_ != 1) return {};
    return {data_ + lanes.begin * lane_stride_, lane_stride_, term_stride_};
  }

 private:
  const T* data_;
  int64_t lane_stride_, term_stride_;
};

// Offsets of the lanes 0, 1, ... of one side of the result: a walk over up to four axes, the last one fastest.
struct Lattice {
  std::array<int64_t, 4> extent{1, 1, 1, 1}, stride{};

  static Lattice line(int64_t extent, int64_t stride) { return {{1, 1, 1, extent}, {0, 0, 0, stride}}; }
  void offsets(Range lanes, int64_t* out) const noexcept;
};

// result[rows, columns] = left[rows, terms] right[terms, columns], plus a bias, through relu.
template <class T>
struct Product {
  int64_t rows = 0, columns = 0, terms = 0;
  std::unique_ptr<const Operand<T>> left, right;
  bool share_left = false, share_right = false;  // packed once, for all tasks
  T* result = nullptr;                           // (i, j) lies at row_offsets of i + column_offsets of j
  Lattice row_offsets, column_offsets;
  Vector<const T> row_bias{}, column_bias{};
  bool relu = false;

  double flops() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(terms);
  }
};

}  // namespace fastconv::cpu
