// A task of a product: some panels of the result, and what it takes to make them.
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "cpu/walk/parts.hpp"
#include "product.hpp"

namespace fastconv::cpu {

// The step between consecutive offsets, or none if it changes.
std::optional<int64_t> uniform_step(const int64_t* offsets, int64_t count) {
  const int64_t step = count > 1 ? offsets[1] - offsets[0] : 0;
  for (int64_t i = 2; i < count; ++i) {
    if (offsets[i] - offsets[i - 1] != step) return std::nullopt;
  }
  return step;
}

// Some panels side by side, one block of terms.
template <class T>
void pack_panels(const Operand<T>& operand, const Panels& panels, Range some, Range terms, T* out, std::byte* scratch) {
  for (int64_t i = some.begin, end = i; i < some.end; i = end) {
    while (end < some.end && panels.width(end) == panels.width(i)) ++end;
    operand.pack(out + (panels.first(i) - panels.first(some.begin)) * terms.size(), static_cast<int>(panels.width(i)),
                 panels.lanes({i, end}), terms, scratch);
  }
}

// Some panels of the result, and what it takes to make them.
template <class T>
class Task {
 public:
  // Some left and right panels, and a part of the terms.
  Task(const Product<T>& product, const ProductCut& cut, const ProductArrays<T>& arrays, const Arrays& at, Range left,
       Range right, int64_t part, int slot)
      : product_(product),
        cut_(cut),
        left_(left),
        right_(right),
        blocks_(Blocks(cut.term_blocks, ceil_div(cut.term_blocks, cut.parts))[part]),
        packed_left_(product.share_left ? at(arrays.shared_left) : at(arrays.own_left, slot)),
        packed_right_(product.share_right ? at(arrays.shared_right) : at(arrays.own_right, slot)),
        row_bias_(product.row_bias.data == nullptr ? nullptr : at(arrays.row_bias)),
        column_bias_(product.column_bias.data == nullptr ? nullptr : at(arrays.column_bias)),
        row_offsets_(at(arrays.row_offsets, slot)),
        column_offsets_(at(arrays.column_offsets, slot)),
        packing_(at(arrays.packing, slot)) {
    if (cut.left_in_place) left_data_ = product.left->in_place({0, product.rows});
    by_rows_ = cut.left_in_place && left_data_.term_stride == 1;
    left_stride_ = by_rows_ ? left_data_.lane_stride : cut.left_in_place ? left_data_.term_stride : cut.mr;
    if (cut.parts > 1) {
      const int64_t tile = (part * cut.left.count() + left.begin) * cut.right.count() + right.begin;
      sums_ = at(arrays.shared_sums) + tile * cut.mr * cut.nr;
      sums_row_ = cut.right.count();
    } else {
      sums_ = at(arrays.own_sums, slot);
      sums_row_ = right.size();
    }
    product.row_offsets.offsets(cut.left.lanes(left), row_offsets_);
    product.column_offsets.offsets(cut.right.lanes(right), column_offsets_);
    row_step_ = uniform_step(row_offsets_, cut.left.lanes(left).size());
  }

  void run() noexcept {
    for (int64_t block = blocks_.begin; block < blocks_.end; ++block) {
      const Range terms{block * cut_.term_block, std::min(product_.terms, (block + 1) * cut_.term_block)};
      if (!product_.share_left && !cut_.left_in_place)
        pack_panels(*product_.left, cut_.left, left_, terms, packed_left_, packing_);
      if (!product_.share_right) pack_right(terms);
      const int64_t left_block = tuning::gemm::kLeftRows / cut_.mr;
      for (int64_t first = left_.begin; first < left_.end; first += left_block) {
        const Range left{first, std::min(left_.end, first + left_block)};
        fetch_ahead(left, terms);
        for (int64_t j = right_.begin; j < right_.end; ++j) column(j, left, terms, block);
      }
    }
  }

  void add_parts() noexcept {
    for (int64_t i = left_.begin; i < left_.end; ++i) {
      for (int64_t j = right_.begin; j < right_.end; ++j) add_tile_parts(i, j);
    }
  }

 private:
  // A whole right panel where it lies, if its first tile is to pack it.
  Strided<T> right_in_place(int64_t j) const {
    const Range columns = cut_.right.lanes(j);
    if (product_.share_right || by_rows_ || columns.size() < cut_.nr) return {};
    const Strided<T> panel = product_.right->in_place(columns);
    return panel.lane_stride == 1 ? panel : Strided<T>{};
  }

  // The right panels that no tile packs.
  void pack_right(Range terms) {
    for (int64_t j = right_.begin; j < right_.end; ++j) {
      const int64_t first = j;
      while (j < right_.end && right_in_place(j).data == nullptr) ++j;
      pack_panels(*product_.right, cut_.right, {first, j}, terms, right_panel(first, terms), packing_);
    }
  }

  // Panels lie [block of terms][panel][terms][width]; those that a task packs for itself, one block at a time.
  const T* left_panel(int64_t i, Range terms) const {
    if (cut_.left_in_place)
      return left_data_.data + i * cut_.mr * left_data_.lane_stride + terms.begin * left_data_.term_stride;
    return packed_left_ + before(cut_.left, i, left_.begin, product_.share_left, terms);
  }
  T* right_panel(int64_t j, Range terms) const {
    return packed_right_ + before(cut_.right, j, right_.begin, product_.share_right, terms);
  }
  static int64_t before(const Panels& panels, int64_t i, int64_t first, bool shared, Range terms) {
    if (shared) return panels.padded() * terms.begin + panels.first(i) * terms.size();
    return (panels.first(i) - panels.first(first)) * terms.size();
  }

  // Each tile of these left panels fetches a slice of the next ones, if they follow: the first tiles to read them would
  // take twice as long, and a loop of prefetches between the tiles as long as it saves.
  void fetch_ahead(Range left, Range terms) {
    const bool follow = by_rows_ ? left_data_.lane_stride == terms.size() : product_.share_left && !cut_.left_in_place;
    ahead_ = {product_.result, 0};
    if (follow) ahead_ = {left_panel(left.end, terms), ceil_div(static_cast<int64_t>(cut_.mr), right_.size())};
  }

  typename GemmKernels<T>::Tile tile_kernel(int width) const {
    if (by_rows_) return kernel_.tiles_by_rows[width / vector_lanes<T>()];
    return width == vector_lanes<T>() ? kernel_.tile_vector : kernel_.tile;
  }

  // The tiles of one right panel with some left ones.
  void column(int64_t j, Range left, Range terms, int64_t block) {
    const int mr = cut_.mr, nr = cut_.nr;
    const auto cols = static_cast<int>(cut_.right.lanes(j).size()), width = static_cast<int>(cut_.right.width(j));
    const int64_t* column_offsets = column_offsets_ + cut_.right.first(j) - cut_.right.first(right_.begin);
    const bool contiguous = width == 1 || (cols == width && uniform_step(column_offsets, cols) == 1);
    const auto kernel = tile_kernel(width);
    T* b = right_panel(j, terms);
    const Strided<T> source = left.begin == left_.begin ? right_in_place(j) : Strided<T>{};
    const auto tile = [&](int64_t i, const T* a, const T* init, T* out, int64_t out_stride, int rows,
                          const Epilogue<T>& epilogue) {
      if (source.data != nullptr && i == left.begin) {
        kernel_.tile_packing(terms.size(), a, left_stride_, source.data + terms.begin * source.term_stride,
                             source.term_stride, b, init, out, out_stride, rows, epilogue);
      } else {
        kernel(terms.size(), a, left_stride_, b, width, init, out, out_stride, rows, epilogue, ahead_);
      }
      ahead_.data += ahead_.step * terms.size();
    };
    for (int64_t i = left.begin; i < left.end; ++i) {
      const int rows = static_cast<int>(std::min<int64_t>(mr, product_.rows - i * mr));
      const T* a = left_panel(i, terms);
      T* partial = sums_ + ((i - left_.begin) * sums_row_ + (j - right_.begin)) * mr * nr;
      const T* init = block > blocks_.begin ? partial : nullptr;
      if (cut_.term_blocks > 1 && i + 1 < left.end) {  // the next tile's sums have left the second-level cache
        const T* next = partial + sums_row_ * mr * nr;
        for (int e = 0; e < mr * nr; e += static_cast<int>(kCacheLine / sizeof(T))) __builtin_prefetch(next + e, 1);
      }
      if (block + 1 < blocks_.end || cut_.parts > 1) {
        tile(i, a, init, partial, nr, rows, {});
        continue;
      }
      const Epilogue<T> epilogue{row_bias_ != nullptr ? row_bias_ + i * mr : nullptr,
                                 column_bias_ != nullptr ? column_bias_ + cut_.right.first(j) : nullptr, product_.relu};
      const int64_t* row_offsets = row_offsets_ + (i - left_.begin) * mr;
      if (const auto row_step = row_step_ ? row_step_ : uniform_step(row_offsets, rows); contiguous && row_step) {
        tile(i, a, init, product_.result + row_offsets[0] + column_offsets[0], *row_step, rows, epilogue);
      } else {
        alignas(kCacheLine) T values[kMaxTile];
        tile(i, a, init, values, nr, rows, epilogue);
        scatter(values, row_offsets, rows, column_offsets, cols);
      }
    }
  }

  // One tile: the sum of its parts, to the result.
  void add_tile_parts(int64_t i, int64_t j) {
    const int mr = cut_.mr, nr = cut_.nr;
    const int rows = static_cast<int>(std::min<int64_t>(mr, product_.rows - i * mr));
    const auto cols = static_cast<int>(cut_.right.lanes(j).size());
    T* sum = sums_ + ((i - left_.begin) * sums_row_ + (j - right_.begin)) * mr * nr;
    sum_parts(sum, cut_.parts, cut_.left.count() * cut_.right.count() * mr * nr, rows * nr);
    scatter(sum, row_offsets_ + (i - left_.begin) * mr, rows,
            column_offsets_ + cut_.right.first(j) - cut_.right.first(right_.begin), cols);
  }

  // A tile to where its rows and columns lie, a run of columns as far from each other at a time.
  void scatter(const T* tile, const int64_t* row_offsets, int rows, const int64_t* column_offsets, int cols) {
    const auto row_step = uniform_step(row_offsets, rows);
    for (int begin = 0, end = 0; begin < cols; begin = end) {
      const int64_t step = begin + 1 < cols ? column_offsets[begin + 1] - column_offsets[begin] : 1;
      do {
        ++end;
      } while (end < cols && column_offsets[end] - column_offsets[end - 1] == step);
      T* out = product_.result + row_offsets[0] + column_offsets[begin];
      if (row_step && (step == 1 || step == 2)) {
        layout_kernels<T>().copy_rows(out, *row_step, step, tile + begin, cut_.nr, 1, rows, end - begin);
        continue;
      }
      for (int row = 0; row < rows; ++row) {
        for (int col = begin; col < end; ++col) {
          product_.result[row_offsets[row] + column_offsets[col]] = tile[row * cut_.nr + col];
        }
      }
    }
  }

  const Product<T>& product_;
  const ProductCut& cut_;
  const GemmKernels<T>& kernel_ = gemm_kernels<T>();
  Range left_, right_, blocks_;
  Strided<T> left_data_;  // if the left operand is read where it lies
  bool by_rows_;          // and is contiguous along its terms
  int64_t left_stride_;
  Ahead<T> ahead_;
  T *packed_left_, *packed_right_, *sums_;
  int64_t sums_row_;  // tiles from one left panel's sums to the next one's
  const T *row_bias_, *column_bias_;
  int64_t *row_offsets_, *column_offsets_;
  std::optional<int64_t> row_step_;  // if one holds for all rows
  std::byte* packing_;
};

}  // namespace fastconv::cpu
