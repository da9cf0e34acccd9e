// The table that each instruction set's build of kernels.cpp fills in: everything whose speed depends on vector width.
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

inline constexpr int64_t kRowPitch = 64;   // elements from one row to the next, known to the kernel
inline constexpr int kMaxRowsVectors = 4;  // of a row of a tile

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

// Lanes [begin, end) of a panel's row: lane i is source + i elements from where a tap begins.
struct StagedRun {
  int32_t source, begin, end;
};

// Moves of elements from one layout to another, without arithmetic.
template <class T>
struct LayoutKernels {
  int lanes;  // of a vector

  // pixels[count][lanes], `pixel_stride` apart, from planes[channels <= lanes][count], `channel_stride` apart; missing
  // channels are zero. And back.
  void (*planes_to_pixels)(T* pixels, int64_t pixel_stride, const T* planes, int64_t channel_stride, int channels,
                           int64_t count);
  void (*pixels_to_planes)(T* planes, int64_t channel_stride, const T* pixels, int64_t pixel_stride, int channels,
                           int64_t count);

  // out[rows, count] = src[rows, count]; columns are a step apart, those of out 1 or 2.
  void (*copy_rows)(T* out, int64_t out_stride, int64_t out_step, const T* src, int64_t src_stride, int64_t src_step,
                    int64_t rows, int64_t count);

  // panels[lanes / width][k][width], lane i of row k being src[i + k * k_stride]; zeros after the last lane.
  void (*pack_lanes)(T* panels, int width, const T* src, int64_t k_stride, int64_t lanes, int64_t k);
  // panel[k][width], lane i of row k being rows[i][k] for i < lanes, else zero; a null row is zeros.
  void (*pack_rows)(T* panel, int width, const T* const* rows, int lanes, int64_t k);
  // out[rows][width], width being whole vectors: column i of [begin, end) is src[i * step], the others are zero. What
  // lies `ahead` of them is fetched, unless that is 0.
  void (*copy_padded)(T* out, int64_t out_stride, int64_t width, const T* src, int64_t src_stride, int64_t step,
                      int64_t begin, int64_t end, int64_t rows, int64_t ahead);
  // panel[end - begin][width], row k of it being the runs of staged[k / tap_count * row + taps[k % tap_count]]; lanes
  // after the last run are zero. Reads a vector beyond the runs.
  void (*pack_runs)(T* panel, int width, const T* staged, int64_t row, const int32_t* taps, int tap_count,
                    int64_t begin, int64_t end, const StagedRun* runs, int run_count);
};

// What one tap of a window reads along a row of outputs: lane i of [begin, end) reads src[offset + i * step], the
// others padding.
struct RowTap {
  int64_t offset, begin, end;
};

template <class T>
struct Plane {
  T* data;
  int64_t row_stride, column_stride, height, width;
};

// Outputs [rows][columns] with channels last, all of which read the same taps: tap t of output (i, j) is x[i * x_row +
// j * x_column + taps[t].offset], its weights weights[taps[t].number].
struct PixelTap {
  int64_t offset, number;
};
template <class T>
struct PixelRectangle {
  int64_t rows, columns;
  const T* x;
  int64_t x_row, x_column;
  T* y;
  int64_t y_row, y_column;
  const PixelTap* taps;
  int64_t tap_count;
};

template <class T>
struct DepthwiseKernels {
  // Channels last. y = bias + the taps' weights * x, through relu, for some vectors of channels, each of which has
  // weights[taps][lanes] and then a vector of bias.
  void (*pixels)(const PixelRectangle<T>& outputs, int64_t channels, int64_t taps, const T* weights, bool relu);
  // sums[vector of channels][taps][lanes] += y * x, y being the outputs' gradient.
  void (*reduce_pixels)(const PixelRectangle<T>& outputs, int64_t channels, int64_t taps, T* sums);

  // The same for filters of 3x3 with a stride of 1 or 2, the index.
  void (*pixels3x3[2])(Plane<T> y, Plane<const T> x, int64_t pad_top, int64_t pad_left, int64_t channels,
                       const T* weights, bool relu);
  void (*reduce_pixels3x3[2])(Plane<const T> dy, Plane<const T> x, int64_t pad_top, int64_t pad_left, int64_t channels,
                              T* sums);

  // Some planes of side by side columns, `step` apart, filters of 3x3 with a stride of 1 or 2: weights[planes][9], and
  // biases[planes] or null; sums[9] += those of all.
  void (*planes3x3[2])(int64_t planes, Plane<T> y, int64_t y_step, Plane<const T> x, int64_t x_step, int64_t pad_top,
                       int64_t pad_left, const T* weights, const T* biases, bool relu);
  void (*reduce_planes3x3[2])(int64_t planes, Plane<const T> dy, int64_t dy_step, Plane<const T> x, int64_t x_step,
                              int64_t pad_top, int64_t pad_left, T* sums);
  // The input gradient of the one with stride 2, of a plane; without stride it is a planes3x3.
  void (*spread_plane3x3)(Plane<T> dx, Plane<const T> dy, int64_t pad_top, int64_t pad_left, const T* weights);
  // Any filter, a row at a time: out[i * out_step] = bias + the taps' weights * values, through relu, and sums[tap]
  // [lanes] += dy[i * dy_step] * values.
  void (*row)(T* out, int64_t out_step, int64_t count, const T* src, const RowTap* taps, const T* weights,
              int64_t tap_count, int64_t step, T bias, bool relu);
  void (*reduce_row)(T* sums, const T* dy, int64_t dy_step, int64_t count, const T* src, const RowTap* taps,
                     const int32_t* numbers, int64_t tap_count, int64_t step);
};

// What lanes hold a type in: tap numbers run beside the values, and a byte is too short for them.
template <class T>
struct LaneOf {
  using Type = T;
};
template <>
struct LaneOf<int8_t> {
  using Type = int32_t;
};
template <>
struct LaneOf<uint8_t> {
  using Type = int32_t;
};
template <class T>
using Lane = typename LaneOf<T>::Type;

// Maxima [rows][lanes]: lane j of row i takes the largest x[i * x_row + j * x_step + taps[t].offset] of the taps with
// begin <= j < end: the first of equal ones, the first NaN if there is one, the type's lowest value (-inf) for no tap.
template <class T>
struct MaxBlock {
  int64_t planes, rows, lanes;
  const T* x;
  int64_t x_plane, x_row, x_step;
  const RowTap* taps;
  const int32_t* codes;  // of the taps, >= 0
  int64_t tap_count;
  T* y;
  int64_t y_plane, y_row;  // lanes are side by side
  // What they came from, as one of these or neither: the tap's code as a byte, 255 for none; or the code + index + i *
  // index_row + j * index_step, -1 for none.
  uint8_t* offsets;
  int64_t* indices;
  int64_t where_plane, where_row;
  int64_t index, index_row, index_step;
  bool rectified;  // only maxima > 0 came from anywhere
};

template <class T>
struct PoolKernels {
  void (*maxima)(const MaxBlock<T>& block);
};

// The gradient of maxima [rows][lanes]. The tap adds dy[i * dy_row + j * dy_step + dy_offset] to lane j of row i, for
// begin <= j < end and where offsets[...] is its code.
struct SpreadTap {
  int64_t dy_offset, where_offset, begin, end;
  int32_t code;
};
template <class T>
struct SpreadBlock {
  int64_t rows, lanes[2];  // of one phase of columns, or of two that alternate in dx
  const T* dy;
  int64_t dy_row, dy_step;
  const uint8_t* offsets;
  int64_t where_row, where_step;
  const SpreadTap* taps[2];
  int64_t tap_count[2];
  T* dx;  // every cell is written
  int64_t dx_row, dx_step;
  bool alternate;
};
template <class T>
struct PoolGradientKernels {
  void (*spread)(const SpreadBlock<T>& block);
};

inline constexpr int64_t kMaxLanes = 16;  // of the widest vector

template <class T>
struct SumKernels {
  // out[i] = (init[i] + the rows' weight * row[i * step]) / divisor for i < count; init may be null: zero, or out.
  void (*rows)(T* out, int64_t count, const T* init, const T* const* rows, const T* weights, int64_t row_count,
               int64_t step, T divisor);
  // sums[i] = row[i * stride] + ... + row[i * stride + taps - 1] for i < count, stride 1 or 2. Both arrays are padded
  // as if count were a multiple of kMaxLanes; the row by one element more.
  void (*slide)(T* sums, int64_t count, const T* row, int64_t taps, int64_t stride);
  // The sum of a contiguous run.
  T (*run)(const T* src, int64_t count);
  // The same, added up in double.
  double (*run_in_double)(const T* src, int64_t count);
  // totals[i] += src[row * stride + i] over the rows, for i < count.
  void (*columns_in_double)(double* totals, const T* src, int64_t stride, int64_t rows, int64_t count);
  // out[2i] = even[i] and out[2i + 1] = odd[i] for i < count, all padded as if count were a multiple of kMaxLanes.
  void (*interleave)(T* out, const T* even, const T* odd, int64_t count);
  // out[i * out_step] = src[i * src_step] / (factor * divisors[i]) for i < count; divisors padded likewise.
  void (*divide)(T* out, int64_t out_step, const T* src, int64_t src_step, const T* divisors, T factor, int64_t count);
};

// Winograd's transforms of F(o x o, r x r): of inputs d[s][s], filters g[r][r] and outputs y[o][o], s = o + r - 1.
template <class T>
struct WinogradTransforms {
  // v[s * s] of one tile, `stride` apart, is B^T d B of d, whose rows and columns lie as their strides say.
  void (*input)(T* v, int64_t stride, const T* d, int64_t row_stride, int64_t column_stride);
  // Its adjoint: d += B v B^T.
  void (*input_gradient)(T* d, int64_t row_stride, int64_t column_stride, const T* v, int64_t stride);
  // u[s * s], `stride` apart, is G g G^T, for the filters of one vector.
  void (*filter)(T* u, int64_t stride, const T* g, int64_t tap_stride);
  // y is A^T m A + bias of m[s * s], `stride` apart, through relu. bias: one vector.
  void (*output)(T* y, int64_t row_stride, int64_t column_stride, const T* m, int64_t stride, const T* bias, bool relu);
  // Their adjoints, for the weight gradient: e[s * s], `stride` apart, is A dy A^T of dy[o][o]; g[r][r][lanes] is
  // G^T u G of u[s * s], `stride` apart.
  void (*gradient)(T* e, int64_t stride, const T* dy, int64_t row_stride, int64_t column_stride);
  void (*filter_gradient)(T* g, const T* u, int64_t stride);
};
// Lanes are channels, so that no transform shuffles.
template <class T>
struct WinogradKernels {
  WinogradTransforms<T> f4x4_3x3, f2x2_3x3, f2x2_5x5;
};

// Values [rows][channels], rows `stride` apart, channels contiguous.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
};

// Factors of y = scale_a a + scale_b (b - shift_b) + bias, one for each channel.
template <class T>
struct ChannelAffine {
  const T *scale_a, *scale_b, *shift_b, *bias;
};

template <class T>
struct BatchNormKernels {
  // sum[c] += a - a0[c] and product[c] += (a - a0[c]) (b - b0[c]), over the rows.
  void (*sums)(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const T* a0, const T* b0, double* sum,
               double* product);
  // y by its factors, then max(y, 0) if relu. a.data may be null: the term is left out, and its factors are not read.
  void (*affine)(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const ChannelAffine<T>& factors,
                 bool relu, Rows<T> y);
};

template <class T>
struct PeakKernels {
  // Runs `rounds` of independent fused multiply-adds in registers and returns their floating-point operations.
  double (*fma)(int64_t rounds);
};

// A family's table for each of the two types that are computed with.
template <template <class> class Table>
struct FloatTables {
  Table<float> float32;
  Table<double> float64;
};

struct PoolTables {
  PoolKernels<float> float32;
  PoolKernels<double> float64;
  PoolKernels<int8_t> int8;
  PoolKernels<uint8_t> uint8;
  PoolKernels<int32_t> int32;
  PoolKernels<int64_t> int64;
};

struct Kernels {
  const char* isa;
  FloatTables<GemmKernels> gemm;
  FloatTables<LayoutKernels> layout;
  FloatTables<DepthwiseKernels> depthwise;
  PoolTables pool;
  FloatTables<PoolGradientKernels> pool_gradient;
  FloatTables<SumKernels> sum;
  FloatTables<WinogradKernels> winograd;
  FloatTables<BatchNormKernels> batch_norm;
  FloatTables<PeakKernels> peak;
};

}  // namespace fastconv::cpu
