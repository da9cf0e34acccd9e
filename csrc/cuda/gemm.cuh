// The matrix product behind convolution and dense layers: c[rows, columns] = sum over terms of a[row, term] b[column,
// term].
//
// A block computes a tile of c. Slabs of kDepth terms of both operands go to shared memory, one slab ahead of the
// arithmetic (cp.async where the device has it); every thread keeps kRows x kColumns sums in registers:
//
//             b  [kDepth][tile columns]
//                +----+----+         a thread's columns (and rows) lie in groups of four, half a tile apart,
//     a          | .. | .. |         so that a warp reads neighbouring 16-byte words of shared memory
//  [kDepth]   +--+----+----+
//  [tile rows]|..|####|####|         per term it loads 8 + 8 values and makes 64 multiply-adds
//             |..|####|####|
//
// Where c has too few tiles for the device, the terms are cut into parts whose sums are stored apart and added in
// order: the number of parts depends on the geometry alone.
#pragma once

#include <algorithm>
#include <iterator>

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
  T* partial = nullptr;  // [parts][groups][rows][columns], where parts > 1
};

// The extents of a tile and of what a thread computes of it.
template <int kTileRows_, int kTileColumns_, int kRows_, int kColumns_>
struct Tiling {
  static constexpr int kTileRows = kTileRows_, kTileColumns = kTileColumns_, kRows = kRows_, kColumns = kColumns_;
  static constexpr int kThreadRows = kTileRows / kRows, kThreadColumns = kTileColumns / kColumns;
  static constexpr int kThreads = kThreadRows * kThreadColumns;
  static constexpr int kDepth = 8;
};
using LargeTiling = Tiling<128, 128, 8, 8>;
using SmallTiling = Tiling<64, 64, 4, 4>;

template <class T, class Tile>
struct Slabs {
  T a[2][Tile::kDepth][Tile::kTileRows + kTilePadding<T>];
  T b[2][Tile::kDepth][Tile::kTileColumns + kTilePadding<T>];
};

// Cell i of a thread's run of kCount cells, among kThreads threads: groups of four, kThreads * 4 apart.
template <int kThreads>
FASTCONV_HD constexpr int cell_of(int thread, int i) {
  return i / 4 * (kThreads * 4) + thread * 4 + i % 4;
}

template <class T, int kCount, int kThreads>
__device__ __forceinline__ void load_cells(T (&cells)[kCount], const T* row, int thread) {
  static_assert(kCount % 4 == 0);
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const T* const from = row + cell_of<kThreads>(thread, i);
    if constexpr (sizeof(T) == 4) {
      const float4 four = *reinterpret_cast<const float4*>(from);
      cells[i] = four.x, cells[i + 1] = four.y, cells[i + 2] = four.z, cells[i + 3] = four.w;
    } else {
      const double2 low = *reinterpret_cast<const double2*>(from), high = *reinterpret_cast<const double2*>(from + 2);
      cells[i] = low.x, cells[i + 1] = low.y, cells[i + 2] = high.x, cells[i + 3] = high.y;
    }
  }
}

template <class T, class Tile>
__device__ __forceinline__ void multiply_slab(const Slabs<T, Tile>& slabs, int slab, int thread_row, int thread_column,
                                              T (&sums)[Tile::kRows][Tile::kColumns]) {
#pragma unroll
  for (int term = 0; term < Tile::kDepth; ++term) {
    T a[Tile::kRows], b[Tile::kColumns];
    load_cells<T, Tile::kRows, Tile::kThreadRows>(a, slabs.a[slab][term], thread_row);
    load_cells<T, Tile::kColumns, Tile::kThreadColumns>(b, slabs.b[slab][term], thread_column);
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumns; ++j) sums[i][j] += a[i] * b[j];
    }
  }
}

// One cell of c from its complete sum.
template <class T>
__device__ __forceinline__ void finish(const Product<T>& p, int64_t group, int64_t row, int64_t column,
                                       int64_t row_offset, int64_t column_offset, T sum) {
  if (p.bias.data != nullptr) {
    sum += p.bias_by_row ? p.bias[group * p.rows + row] : p.bias[group * p.columns + column];
  }
  if (p.relu && sum < T(0)) sum = T(0);  // NaN stays
  p.c.data[group * p.c.group_stride + row_offset + column_offset] = sum;
}

template <class T, class Tile>
__device__ __forceinline__ void store_tile(const Product<T>& p, int64_t part, int64_t group, int64_t first_row,
                                           int64_t first_column, int thread_row, int thread_column,
                                           const T (&sums)[Tile::kRows][Tile::kColumns]) {
  // Every offset is worked out once: the columns' are kept, since a row needs them all.
  int64_t column_offset[Tile::kColumns];
#pragma unroll
  for (int j = 0; j < Tile::kColumns; ++j) {
    const int64_t column = first_column + cell_of<Tile::kThreadColumns>(thread_column, j);
    column_offset[j] = Digits::of(p.c.columns, column < p.columns ? column : 0).offset(p.c.columns);
  }
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
    const int64_t row = first_row + cell_of<Tile::kThreadRows>(thread_row, i);
    if (row >= p.rows) continue;
    const int64_t row_offset = Digits::of(p.c.rows, row).offset(p.c.rows);
    T* const partial = p.parts > 1 ? p.partial + ((part * p.groups + group) * p.rows + row) * p.columns : nullptr;
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) {
      const int64_t column = first_column + cell_of<Tile::kThreadColumns>(thread_column, j);
      if (column >= p.columns) continue;
      if (partial != nullptr) {
        partial[column] = sums[i][j];
      } else {
        finish(p, group, row, column, row_offset, column_offset[j], sums[i][j]);
      }
    }
  }
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) product_kernel(const __grid_constant__ Product<T> p) {
  auto& slabs = shared_memory<Slabs<T, Tile>>();
  const int thread_row = static_cast<int>(threadIdx.x) / Tile::kThreadColumns;
  const int thread_column = static_cast<int>(threadIdx.x) % Tile::kThreadColumns;
  const int64_t row_tiles = ceil_div(p.rows, Tile::kTileRows), column_tiles = ceil_div(p.columns, Tile::kTileColumns);
  const int64_t tiles = row_tiles * column_tiles * p.groups * p.parts;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    // Tiles that share columns of b follow each other: they find them in the second-level cache.
    const int64_t first_row = tile % row_tiles * Tile::kTileRows;
    const int64_t first_column = tile / row_tiles % column_tiles * Tile::kTileColumns;
    const int64_t group = tile / (row_tiles * column_tiles) % p.groups;
    const int64_t part = tile / (row_tiles * column_tiles * p.groups);
    const int64_t first_term = part * p.part_terms;
    const int64_t last_term = first_term + p.part_terms < p.terms ? first_term + p.part_terms : p.terms;

    TileReader<T, Tile::kTileRows, Tile::kDepth, Tile::kThreads> a(p.a, group, first_row, p.rows, first_term,
                                                                   last_term);
    TileReader<T, Tile::kTileColumns, Tile::kDepth, Tile::kThreads> b(p.b, group, first_column, p.columns, first_term,
                                                                      last_term);
    T sums[Tile::kRows][Tile::kColumns] = {};
    const int64_t slab_count = ceil_div(last_term - first_term, Tile::kDepth);
    a.read(slabs.a[0]);
    b.read(slabs.b[0]);
    close_copy_group();
    for (int64_t slab = 0; slab < slab_count; ++slab) {
      wait_for_copies<0>();
      __syncthreads();  // this slab is complete, and nobody reads the one before any more
      const int now = static_cast<int>(slab % 2);
      a.read(slabs.a[1 - now]);
      b.read(slabs.b[1 - now]);
      close_copy_group();
      multiply_slab<T, Tile>(slabs, now, thread_row, thread_column, sums);
    }
    wait_for_copies<0>();
    __syncthreads();  // the next tile overwrites the slabs
    store_tile<T, Tile>(p, part, group, first_row, first_column, thread_row, thread_column, sums);
  }
}

inline constexpr int kAddThreads = 256;

// c from the parts' sums, added in their order.
template <class T>
__global__ void __launch_bounds__(kAddThreads) add_parts_kernel(const __grid_constant__ Product<T> p) {
  const int64_t cells = p.groups * p.rows * p.columns;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAddThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAddThreads + threadIdx.x; i < cells; i += step) {
    T sum = 0;
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

// Cuts the terms into parts, as far as there is memory for their sums.
template <class T, class Tile>
void choose_parts(Product<T>& p, std::size_t workspace_limit) {
  const int64_t tiles = ceil_div(p.rows, Tile::kTileRows) * ceil_div(p.columns, Tile::kTileColumns) * p.groups;
  const auto part_bytes = static_cast<std::size_t>(p.groups * p.rows * p.columns) * sizeof(T);
  int64_t parts = kEnoughTiles / tiles;
  if (parts > p.terms / kLeastPartTerms) parts = p.terms / kLeastPartTerms;
  if (parts > 1 && workspace_limit / part_bytes < static_cast<std::size_t>(parts)) {
    parts = static_cast<int64_t>(workspace_limit / part_bytes);
  }
  if (parts < 2) parts = 1;
  // Whole slabs: a part that ends inside one would read the rest of it for nothing.
  p.part_terms = ceil_div(ceil_div(p.terms, parts), Tile::kDepth) * Tile::kDepth;
  p.parts = p.part_terms == 0 ? 1 : ceil_div(p.terms, p.part_terms);
  if (p.parts < 1) p.parts = 1;
  if (p.parts > 1) p.partial = allocate<T>(p.parts * p.groups * p.rows * p.columns);
}

inline void set_slab(Radix& terms, int depth) {
  const Digits slab = Digits::of(terms, depth);
  std::copy(std::begin(slab.digit), std::end(slab.digit), terms.slab);
}

template <class T, class Tile>
void launch_product(Product<T> p, std::size_t workspace_limit) {
  set_slab(p.a.terms, Tile::kDepth);
  set_slab(p.b.terms, Tile::kDepth);
  choose_parts<T, Tile>(p, workspace_limit);
  const int64_t tiles =
      ceil_div(p.rows, Tile::kTileRows) * ceil_div(p.columns, Tile::kTileColumns) * p.groups * p.parts;
  launch(product_kernel<T, Tile>, grid_for(tiles), Tile::kThreads, sizeof(Slabs<T, Tile>), p);
  if (p.parts == 1) return;
  launch(add_parts_kernel<T>, grid_for(ceil_div(p.groups * p.rows * p.columns, kAddThreads)), kAddThreads, 0, p);
}

template <class T>
void multiply(const Product<T>& p, std::size_t workspace_limit) {
  if (p.rows == 0 || p.columns == 0 || p.groups == 0) return;
  if constexpr (sizeof(T) == 4) {
    // A large tile loads half as much per multiplication; a small one wastes less of a small result.
    const int64_t large =
        ceil_div(p.rows, LargeTiling::kTileRows) * ceil_div(p.columns, LargeTiling::kTileColumns) * p.groups;
    const bool filled = p.rows > SmallTiling::kTileRows && p.columns > SmallTiling::kTileColumns;
    if (filled && large >= kEnoughTiles / 2) return launch_product<T, LargeTiling>(p, workspace_limit);
  }
  launch_product<T, SmallTiling>(p, workspace_limit);
}

}  // namespace fastconv::cuda
