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

#include <array>
#include <cstddef>

#include "cpu/runtime/isa.hpp"
#include "ops.hpp"

namespace fastconv::cpu {

inline constexpr int kMaxWidth = 64;         // lanes of the widest panel
inline constexpr int kMaxTile = 448;         // elements of the largest tile

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

// Computes the product on up to `threads` threads, fewer where the workspace would exceed the limit in bytes;
// std::invalid_argument, before anything is written, if one thread's does.
template <class T>
void multiply(const Product<T>& product, int threads, std::size_t workspace_limit);

}  // namespace fastconv::cpu
