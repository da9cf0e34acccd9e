// How a matrix product is cut into panels, tasks and blocks of terms.
#pragma once

#include <algorithm>

#include "gemm.hpp"

namespace fastconv::cpu {

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
  int mr, nr;                       // of a tile
  Panels left, right;               // of the whole result
  int64_t task_left, task_right;    // panels of a task
  int64_t term_block, term_blocks;  // terms of a block, and blocks
  bool left_in_place;               // too few right panels to pay for packing the left operand
  int64_t parts;  // of the terms, each with a sum of its own, where the result alone is too small to share out
};
template <class T>
ProductCut cut_product(const Product<T>& product);

}  // namespace fastconv::cpu
