// The micro-kernels of the matrix product: tiles of a result.
//
// A panel holds W rows (or columns) of an operand side by side, [k][W], zeros where the operand ends: W is `mr` for the
// left operand and `nr` for the right one.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// What happens to a finished tile on its way to memory.
template <class T>
struct Epilogue {
  const T* row_bias = nullptr;  // one for each row of the tile, or null
  const T* col_bias = nullptr;  // one for each column of the tile (nr of them readable), or null
  bool relu = false;
};

// What a kernel fetches on the way, data[k * step] for each k; wherever it points, it is never read.
template <class T>
struct Ahead {
  const T* data;
  int64_t step;
};

// Elements from one row of a left operand to the next, known to the kernel so that its addresses need no register.
inline constexpr int64_t kRowPitch = 64;
// Vectors of a row of the widest tile whose left operand lies by rows.
inline constexpr int kMaxRowsVectors = 4;

template <class T>
struct GemmKernels {
  int mr, nr;            // nr is two vectors
  int rows_mr, rows_nr;  // of tiles whose left operand lies by rows; rows_nr is two vectors or four
  int64_t k_block;       // the longest run of k that a tile should sum at once

  // out[rows, nr] = init[rows, nr] + a^T b, through the epilogue. Row i of k is a[k * a_stride + i], column j is b[k *
  // b_stride + j]: of panels, if the strides are mr and nr. `init` (rows nr apart) may be null: zero. `ahead` goes to
  // the second-level cache.
  using Tile = void (*)(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, const T* init, T* out,
                        int64_t out_stride, int rows, const Epilogue<T>& epilogue, const Ahead<T>& ahead);
  Tile tile;
  // The same for panels of one vector.
  Tile tile_vector;
  // As tile with rows that are contiguous along k, kRowPitch apart: row i of k is a[i * kRowPitch + k].
  Tile tile_pitched;
  // With rows that are any stride apart, a[i * a_stride + k], up to rows_mr of them, and rows_nr from one row of `init`
  // to the next. tiles_by_rows[v] takes panels of v vectors, up to rows_nr; [0] one column [k].
  Tile tiles_by_rows[kMaxRowsVectors + 1];
  // As tile and tile_vector with rows and k scattered: row i of k is a[i * a_stride + offsets[k]].
  using ScatteredTile = void (*)(int64_t k, const T* a, int64_t a_stride, const int32_t* offsets, const T* b,
                                 const T* init, T* out, int64_t out_stride, int rows, const Epilogue<T>& epilogue,
                                 const Ahead<T>& ahead);
  ScatteredTile tile_scattered, tile_scattered_vector;
  // As tile, of a right operand that is not packed yet: its rows go to the panel on the way, so that packing needs no
  // pass of its own, and what follows in them, for the panels beside it, to the cache.
  void (*tile_packing)(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* panel, const T* init,
                       T* out, int64_t out_stride, int rows, const Epilogue<T>& epilogue);
  // Outputs of a plane as lanes: vector v < 2 of k is b[v * b_next + offsets[k]], the left operand as in tile. Of the
  // vectors `lanes` are written, row i to out[v * out_next + i * out_stride].
  void (*tile_planes)(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_next, const int32_t* offsets,
                      T* out, int64_t out_stride, int64_t out_next, int rows, int lanes, const Epilogue<T>& epilogue);

  // sums[dot_cols][dot_rows] += the products of rows along k, which is `images` times `pixels` neighbours: row i of a
  // is a[i][n * a_image + pixel]. What lies so far ahead of them is fetched.
  void (*dot)(int64_t images, int64_t pixels, const T* const* a, int64_t a_image, const T* const* b, int64_t b_image,
              int64_t a_ahead, int64_t b_ahead, T* sums);
  int dot_rows, dot_cols;
};

}  // namespace fastconv::cpu
