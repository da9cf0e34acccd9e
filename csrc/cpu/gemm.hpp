// The matrix product that every pass, Winograd and the dense layer share.
//
//            n                 Panels of `nr` columns of the right operand and of `mr` rows of the left one are
//        +-------+             packed, [k][nr] and [k][mr]. A tile [mr, nr] of the result is one call of the
//     k  | right |             micro-kernel, which keeps it in registers over a block of k. Only packing reads an
//        +-------+             operand that lies otherwise: an image's patches are im2col that never exists.
//    k                         What lies in rows already is read in place, and packed by the first tile or not at all.
//  +----+-------+
// m|left|result |              Goto and van de Geijn, ACM TOMS 34 (2008); Van Zee and van de Geijn, ACM TOMS 41 (2015).
//  +----+-------+
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "../ops.hpp"
#include "isa.hpp"

namespace fastconv::cpu {

inline constexpr int kMaxWidth = 64;         // lanes of the widest panel
inline constexpr int kMaxTile = 448;         // elements of the largest tile
inline constexpr double kSerialFlops = 1e6;  // below this, a second thread costs more than it saves

// Lane i of row k is data[i * lane_stride + k * k_stride].
template <class T>
struct Strided {
  const T* data = nullptr;
  int64_t lane_stride = 0, k_stride = 0;
};

// One side of a product: lanes (rows of the left one, columns of the right one) by k.
template <class T>
class Operand {
 public:
  virtual ~Operand() = default;
  // panels[lanes / width][k][width], zeros after the last lane; `scratch` has scratch_bytes(width).
  virtual void pack(T* panels, int width, Range lanes, Range k, std::byte* scratch) const = 0;
  virtual std::size_t scratch_bytes(int /*width*/) const { return 0; }
  // Some lanes where they lie; null if neither they nor k are contiguous.
  virtual Strided<T> in_place(Range /*lanes*/) const { return {}; }
};

template <class T>
class MatrixOperand final : public Operand<T> {
 public:
  MatrixOperand(const T* data, int64_t lane_stride, int64_t k_stride)
      : data_(data), lane_stride_(lane_stride), k_stride_(k_stride) {}
  void pack(T* panels, int width, Range lanes, Range k, std::byte* scratch) const override;
  Strided<T> in_place(Range lanes) const override {
    if (lane_stride_ != 1 && k_stride_ != 1) return {};
    return {data_ + lanes.begin * lane_stride_, lane_stride_, k_stride_};
  }

 private:
  const T* data_;
  int64_t lane_stride_, k_stride_;
};

// Offsets of the lanes 0, 1, ... of one side of the result: a walk over up to four axes, the last one fastest.
struct Lattice {
  std::array<int64_t, 4> extent{1, 1, 1, 1}, stride{};

  static Lattice line(int64_t extent, int64_t stride) { return {{1, 1, 1, extent}, {0, 0, 0, stride}}; }
  void offsets(Range lanes, int64_t* out) const;
};

template <class T>
struct Product {
  int64_t m = 0, n = 0, k = 0;
  const Operand<T>* left = nullptr;
  const Operand<T>* right = nullptr;
  bool share_left = false, share_right = false;  // packed once, for all tasks
  T* result = nullptr;                           // element (i, j) at rows.offset(i) + cols.offset(j)
  Lattice rows, cols;
  Vector<const T> row_bias{}, col_bias{};
  bool relu = false;
};

// The panels of an operand's lanes: whole ones and, where `vector` is given, at the end perhaps one of fewer vectors,
// and up to `singles` single lanes, so that an extent just beyond some panels does not cost another.
class Panels {
 public:
  Panels() = default;
  Panels(int64_t extent, int64_t width) : extent_(extent), width_(width), whole_(ceil_div(extent, width)) {}
  Panels(int64_t extent, int64_t width, int64_t vector, int64_t singles);

  int64_t count() const { return before_singles() + singles_; }
  int64_t width(int64_t i) const { return i < whole_ ? width_ : i < before_singles() ? rest_ : 1; }
  // Lanes before panel i, padding included.
  int64_t first(int64_t i) const { return i <= whole_ ? i * width_ : whole_ * width_ + rest_ + i - before_singles(); }
  int64_t padded() const { return first(count()); }
  Range lanes(Range panels) const { return {first(panels.begin), std::min(extent_, first(panels.end))}; }
  Range lanes(int64_t i) const { return lanes({i, i + 1}); }

 private:
  int64_t before_singles() const { return whole_ + (rest_ > 0 ? 1 : 0); }

  int64_t extent_ = 0, width_ = 1, whole_ = 0, rest_ = 0, singles_ = 0;  // rest: the width of the last one
};

// How a product is cut; a function of its extents alone, so that every thread count gives the same bits.
struct ProductCut {
  int mr, nr;                     // of a tile
  Panels left, right;             // of the whole result
  int64_t task_left, task_right;  // panels of a task
  int64_t k_block, k_blocks;
  bool left_in_place;  // too few right panels to pay for packing the left operand
  int64_t parts;       // of k, each with a sum of its own, where the result alone is too small to share out
};
template <class T>
ProductCut cut_product(const Product<T>& product);

// Computes the product on up to `threads` threads, fewer where the workspace would exceed the limit in bytes;
// std::invalid_argument, before anything is written, if one thread's does.
template <class T>
void multiply(const Product<T>& product, int threads, std::size_t workspace_limit);

template <class T>
const GemmKernels<T>& gemm_kernels() {
  return table_for<T>(kernels().float32, kernels().float64);
}

}  // namespace fastconv::cpu
