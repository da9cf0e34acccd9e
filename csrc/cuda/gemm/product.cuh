// The matrix product behind convolution and dense layers: c[rows, columns] = sum over terms of a[row, term] b[column,
// term]. fma.cu computes it with multiply-adds of every thread, tensor.cu on tensor cores.
//
// A block computes a tile of c. Where c has too few tiles for the device, the terms are cut into parts whose sums are
// stored apart and added in order: the number of parts depends on the geometry alone.
#pragma once

#include <algorithm>
#include <iterator>
#include <utility>

#include "operand.cuh"

namespace fastconv::cuda {

template <class T>
struct Product {
  Operand<T> a, b;
  Result<T> c;
  Vector<const T> bias;  // along the rows or the columns of c; groups lie one after another
  bool bias_by_row = true;
  bool relu = false;
  int64_t rows = 0, columns = 0, terms = 0, groups = 1;
  int64_t parts = 1, part_terms = 0;
  Sum<T>* partial = nullptr;  // [parts][groups][rows][columns], where parts > 1
};

// Computes c. float16 and bfloat16 need tensor cores, float32 takes them if it may be rounded to tf32.
template <class T>
void multiply(const Product<T>& p, Precision precision, std::size_t workspace_limit);
template <class T>
void multiply_on_tensor_cores(Product<T> p, std::size_t workspace_limit);

template <class T>
bool on_tensor_cores(Precision precision) {
  return sizeof(T) == 2 || (sizeof(T) == 4 && precision == Precision::tf32);
}

// c, by columns: a and b change places.
template <class T>
void exchange_operands(Product<T>& p) {
  std::swap(p.a, p.b);
  std::swap(p.rows, p.columns);
  std::swap(p.c.rows, p.c.columns);
  p.bias_by_row = !p.bias_by_row;
}

// One tile of c and the terms of one part of its sums, by number.
struct TilePlace {
  int64_t first_row, first_column, group, part, first_term, last_term;
};

template <class T, class Tile>
FASTCONV_HD int64_t tile_count(const Product<T>& p) {
  return ceil_div(p.rows, Tile::kTileRows) * ceil_div(p.columns, Tile::kTileColumns) * p.groups * p.parts;
}

template <class T, class Tile>
__device__ __forceinline__ TilePlace place_of_tile(const Product<T>& p, int64_t tile) {
  const int64_t row_tiles = ceil_div(p.rows, Tile::kTileRows), column_tiles = ceil_div(p.columns, Tile::kTileColumns);
  TilePlace place;
  // Tiles that share columns of b follow each other: they find them in the second-level cache.
  place.first_row = tile % row_tiles * Tile::kTileRows;
  place.first_column = tile / row_tiles % column_tiles * Tile::kTileColumns;
  place.group = tile / (row_tiles * column_tiles) % p.groups;
  place.part = tile / (row_tiles * column_tiles * p.groups);
  place.first_term = place.part * p.part_terms;
  place.last_term = place.first_term + p.part_terms < p.terms ? place.first_term + p.part_terms : p.terms;
  return place;
}

// One cell of c from its complete sum.
template <class T>
__device__ __forceinline__ void finish(const Product<T>& p, int64_t group, int64_t row, int64_t column,
                                       int64_t row_offset, int64_t column_offset, Sum<T> sum) {
  if (p.bias.data != nullptr) {
    sum += Sum<T>(p.bias_by_row ? p.bias[group * p.rows + row] : p.bias[group * p.columns + column]);
  }
  if (p.relu && sum < Sum<T>(0)) sum = 0;  // NaN stays
  p.c.data[group * p.c.group_stride + row_offset + column_offset] = T(sum);
}

// A thread's cells of a tile: row_of(i) and column_of(j) say where in c they lie, sum_of(i, j) what was computed there.
template <int kRows, int kColumns, class T, class RowOf, class ColumnOf, class SumAt>
__device__ __forceinline__ void store_cells(const Product<T>& p, const TilePlace& place, RowOf row_of,
                                            ColumnOf column_of, SumAt sum_of) {
  // Every offset is worked out once: the columns' are kept, since a row needs them all.
  int64_t column_offset[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int64_t column = column_of(j);
    column_offset[j] = Digits::of(p.c.columns, column < p.columns ? column : 0).offset(p.c.columns);
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t row = row_of(i);
    if (row >= p.rows) continue;
    const int64_t row_offset = Digits::of(p.c.rows, row).offset(p.c.rows);
    Sum<T>* const partial =
        p.parts > 1 ? p.partial + ((place.part * p.groups + place.group) * p.rows + row) * p.columns : nullptr;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int64_t column = column_of(j);
      if (column >= p.columns) continue;
      if (partial != nullptr) {
        partial[column] = sum_of(i, j);
      } else {
        finish(p, place.group, row, column, row_offset, column_offset[j], sum_of(i, j));
      }
    }
  }
}

inline constexpr int kAddThreads = 256;

// c from the parts' sums, added in their order.
template <class T>
__global__ void __launch_bounds__(kAddThreads) add_parts_kernel(const __grid_constant__ Product<T> p) {
  const int64_t cells = p.groups * p.rows * p.columns;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAddThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAddThreads + threadIdx.x; i < cells; i += step) {
    Sum<T> sum = 0;
    for (int64_t part = 0; part < p.parts; ++part) sum += p.partial[part * cells + i];
    const int64_t column = i % p.columns, row = i / p.columns % p.rows, group = i / p.columns / p.rows;
    finish(p, group, row, column, Digits::of(p.c.rows, row).offset(p.c.rows),
           Digits::of(p.c.columns, column).offset(p.c.columns), sum);
  }
}

// Tiles that fill a large device once; beyond it parts gain nothing. A property of the algorithm, not of the device:
// results must not depend on where they are computed.
inline constexpr int64_t kEnoughTiles = 256;
inline constexpr int64_t kLeastPartTerms = 256;

// Cuts the terms into parts of whole slabs, as far as there is memory for their sums.
template <class T, class Tile>
void choose_parts(Product<T>& p, int depth, std::size_t workspace_limit) {
  const int64_t tiles = ceil_div(p.rows, Tile::kTileRows) * ceil_div(p.columns, Tile::kTileColumns) * p.groups;
  const auto part_bytes = static_cast<std::size_t>(p.groups * p.rows * p.columns) * sizeof(Sum<T>);
  int64_t parts = kEnoughTiles / tiles;
  if (parts > p.terms / kLeastPartTerms) parts = p.terms / kLeastPartTerms;
  if (parts > 1 && workspace_limit / part_bytes < static_cast<std::size_t>(parts)) {
    parts = static_cast<int64_t>(workspace_limit / part_bytes);
  }
  if (parts < 2) parts = 1;
  // Whole slabs: a part that ends inside one would read the rest of it for nothing.
  p.part_terms = ceil_div(ceil_div(p.terms, parts), depth) * depth;
  p.parts = p.part_terms == 0 ? 1 : ceil_div(p.terms, p.part_terms);
  if (p.parts < 1) p.parts = 1;
  if (p.parts > 1) p.partial = allocate<Sum<T>>(p.parts * p.groups * p.rows * p.columns);
}

// Says how many terms a reader goes on from one turn to the next.
inline void set_slab(Radix& terms, int step) {
  const Digits slab = Digits::of(terms, step);
  std::copy(std::begin(slab.digit), std::end(slab.digit), terms.slab);
}

// Computes c by a kernel over tiles that takes `depth` terms at a time, and adds its parts.
template <class Tile, class T>
void launch_product(void (*kernel)(Product<T>), Product<T> p, int depth, std::size_t shared_bytes,
                    std::size_t workspace_limit) {
  choose_parts<T, Tile>(p, depth, workspace_limit);
  launch(kernel, grid_for(tile_count<T, Tile>(p)), Tile::kThreads, shared_bytes, p);
  if (p.parts == 1) return;
  launch(add_parts_kernel<T>, grid_for(ceil_div(p.groups * p.rows * p.columns, kAddThreads)), kAddThreads, 0, p);
}

}  // namespace fastconv::cuda
