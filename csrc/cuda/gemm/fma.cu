// The product by multiply-adds of every thread, in float32 and float64.
//
// Slabs of kDepth terms of both operands go to shared memory, one slab ahead of the arithmetic (cp.async where the
// device has it); every thread keeps kRows x kColumns sums in registers:
//
//             b  [kDepth][tile columns]
//                +----+----+         a thread's columns (and rows) lie in groups of four, half a tile apart,
//     a          | .. | .. |         so that a warp reads neighbouring 16-byte words of shared memory
//  [kDepth]   +--+----+----+
//  [tile rows]|..|####|####|         per term it loads 8 + 8 values and makes 64 multiply-adds
//             |..|####|####|
#include "product.cuh"

namespace fastconv::cuda {
namespace {

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

// Terms of an operand in shared memory.
template <class T, int kLines, int kDepth>
struct Slab {
  T cell[kDepth][kLines + 16 / sizeof(T)];  // a longer row, so that the threads of a warp write to different banks

  __device__ __forceinline__ T* at(int line, int term) { return &cell[term][line]; }
};

template <class T, class Tile>
struct Slabs {
  Slab<T, Tile::kTileRows, Tile::kDepth> a[2];
  Slab<T, Tile::kTileColumns, Tile::kDepth> b[2];
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
    load_cells<T, Tile::kRows, Tile::kThreadRows>(a, slabs.a[slab].cell[term], thread_row);
    load_cells<T, Tile::kColumns, Tile::kThreadColumns>(b, slabs.b[slab].cell[term], thread_column);
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kColumns; ++j) sums[i][j] += a[i] * b[j];
    }
  }
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) product_kernel(const __grid_constant__ Product<T> p) {
  auto& slabs = shared_memory<Slabs<T, Tile>>();
  const int thread_row = static_cast<int>(threadIdx.x) / Tile::kThreadColumns;
  const int thread_column = static_cast<int>(threadIdx.x) % Tile::kThreadColumns;
  const int64_t tiles = tile_count<T, Tile>(p);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const TilePlace at = place_of_tile<T, Tile>(p, tile);
    CellReader<T, Tile::kTileRows, Tile::kDepth, Tile::kThreads> a(p.a, at.group, at.first_row, p.rows, at.first_term,
                                                                   at.last_term);
    CellReader<T, Tile::kTileColumns, Tile::kDepth, Tile::kThreads> b(p.b, at.group, at.first_column, p.columns,
                                                                      at.first_term, at.last_term);
    T sums[Tile::kRows][Tile::kColumns] = {};
    const int64_t slab_count = ceil_div(at.last_term - at.first_term, Tile::kDepth);
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
    store_cells<Tile::kRows, Tile::kColumns>(
        p, at, [&](int i) { return at.first_row + cell_of<Tile::kThreadRows>(thread_row, i); },
        [&](int j) { return at.first_column + cell_of<Tile::kThreadColumns>(thread_column, j); },
        [&](int i, int j) { return sums[i][j]; });
  }
}

template <class T, class Tile>
void launch_tiles(Product<T> p, std::size_t workspace_limit) {
  set_slab(p.a.terms, Tile::kDepth);
  set_slab(p.b.terms, Tile::kDepth);
  launch_product<Tile>(product_kernel<T, Tile>, p, Tile::kDepth, sizeof(Slabs<T, Tile>), workspace_limit);
}

}  // namespace

template <class T>
void multiply(const Product<T>& p, Precision precision, std::size_t workspace_limit) {
  if (p.rows == 0 || p.columns == 0 || p.groups == 0) return;
  if constexpr (sizeof(T) <= 4) {
    if (on_tensor_cores<T>(precision)) return multiply_on_tensor_cores(p, workspace_limit);
  }
  if constexpr (sizeof(T) == 4) {
    // A large tile loads half as much per multiplication; a small one wastes less of a small result.
    const int64_t large =
        ceil_div(p.rows, LargeTiling::kTileRows) * ceil_div(p.columns, LargeTiling::kTileColumns) * p.groups;
    const bool filled = p.rows > SmallTiling::kTileRows && p.columns > SmallTiling::kTileColumns;
    if (filled && large >= kEnoughTiles / 2) return launch_tiles<T, LargeTiling>(p, workspace_limit);
  }
  if constexpr (sizeof(T) >= 4) launch_tiles<T, SmallTiling>(p, workspace_limit);
}

template void multiply(const Product<Float16>&, Precision, std::size_t);
template void multiply(const Product<BFloat16>&, Precision, std::size_t);
template void multiply(const Product<float>&, Precision, std::size_t);
template void multiply(const Product<double>&, Precision, std::size_t);

}  // namespace fastconv::cuda
