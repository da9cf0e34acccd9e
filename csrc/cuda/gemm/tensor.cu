// The product on tensor cores, of tf32, float16 and bfloat16 with sums in float32.
//
// A block computes a tile of 128 x 128 (or 64 columns), each of its eight warps 64 x 32 of it. Slabs of both operands
// go through a ring of kStages in shared memory: while one is multiplied, the next ones are on their way (cp.async).
//
//              b  columns of c
//              +---+---+---+---+
//     a        | 32|   |   |   |      a warp loads 4 fragments of 16 rows and 2 of 16 columns (ldmatrix)
//   rows  +--+ +---+---+---+---+      and makes 16 multiplications of 16 x 8 x 32 bytes of terms
//         |64| |warp 0..3      |
//         |  | |     4..7      |
//         +--+ +---+---+---+---+
#include "chunks.cuh"
#include "product.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kStages = 4;

// The ways of an operand into shared memory. Cell by cell any will do; whole chunks are much faster.
template <class T, int kLines_>
struct Cells {
  static constexpr int kLines = kLines_, kDepth = 16;
  using Slab = TensorSlab<T, kLines, kDepth, true>;
  using Reader = CellReader<T, kLines, kDepth, kTensorThreads>;
};
template <class T, bool kAlongTerms>
struct Chunks {
  static constexpr int kLines = 128, kDepth = 64 / static_cast<int>(sizeof(T));
  using Slab = TensorSlab<T, kLines, kDepth, kAlongTerms>;
  using Reader = ChunkReader<T, kLines, kDepth, kAlongTerms>;
};

// The tile of a block, two by four of its warps'.
template <class A, class B>
struct TensorTile {
  static constexpr int kTileRows = A::kLines, kTileColumns = B::kLines, kThreads = kTensorThreads;
  static constexpr int kWarpsAcross = 4;
  static constexpr int kWarpRows = kTileRows * kWarpsAcross * kWarpSize / kThreads;
  static constexpr int kWarpColumns = kTileColumns / kWarpsAcross;
  using Sums = float[kWarpRows / 16][kWarpColumns / 8][4];
};

template <class A, class B>
struct Stages {
  typename A::Slab a[kStages];
  typename B::Slab b[kStages];
};

template <class T, class A, class B>
__device__ __forceinline__ void multiply_slab(typename A::Slab& a_slab, typename B::Slab& b_slab, int warp_row,
                                              int warp_column, typename TensorTile<A, B>::Sums& sums) {
  using Tile = TensorTile<A, B>;
  static_assert(A::kDepth == B::kDepth && A::kDepth % kMultiplyTerms<T> == 0);
#pragma unroll
  for (int term = 0; term < A::kDepth; term += kMultiplyTerms<T>) {
    unsigned a[Tile::kWarpRows / 16][4], b[Tile::kWarpColumns / 16][4];
#pragma unroll
    for (int i = 0; i < Tile::kWarpRows / 16; ++i) load_fragment<T, false>(a_slab, warp_row + 16 * i, term, a[i]);
#pragma unroll
    for (int j = 0; j < Tile::kWarpColumns / 16; ++j) {
      load_fragment<T, true>(b_slab, warp_column + 16 * j, term, b[j]);
    }
#pragma unroll
    for (int i = 0; i < Tile::kWarpRows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kWarpColumns / 8; ++j) {
        multiply_add<T>(sums[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
      }
    }
  }
}

template <class T, class A, class B>
__device__ __forceinline__ void compute_tile(const Product<T>& p, const TilePlace& at) {
  using Tile = TensorTile<A, B>;
  auto& stages = shared_memory<Stages<A, B>>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp_row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
  const int warp_column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;

  typename A::Reader a(p.a, at.group, at.first_row, p.rows, at.first_term, at.last_term);
  typename B::Reader b(p.b, at.group, at.first_column, p.columns, at.first_term, at.last_term);
  const auto read = [&](int stage) {  // beyond the last term these are zeros
    a.read(stages.a[stage]);
    b.read(stages.b[stage]);
    close_copy_group();
  };
  typename Tile::Sums sums = {};
  for (int stage = 0; stage < kStages - 1; ++stage) read(stage);
  int now = 0, free = kStages - 1;
  for (int64_t slabs = ceil_div(at.last_term - at.first_term, A::kDepth); slabs > 0; --slabs) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // this slab is complete, and nobody reads the one before any more
    read(free);
    multiply_slab<T, A, B>(stages.a[now], stages.b[now], warp_row, warp_column, sums);
    free = now;
    now = now == kStages - 1 ? 0 : now + 1;
  }
  wait_for_copies<0>();
  __syncthreads();  // the next tile overwrites the slabs
  const int first_row = warp_row + lane / 4, first_column = warp_column + lane % 4 * 2;
  store_cells<2 * (Tile::kWarpRows / 16), 2 * (Tile::kWarpColumns / 8)>(
      p, at, [&](int i) { return at.first_row + first_row + 8 * i; },
      [&](int j) { return at.first_column + first_column + j / 2 * 8 + j % 2; },
      [&](int i, int j) { return sums[i / 2][j / 2][i % 2 * 2 + j % 2]; });
}

template <class T, class A, class B>
__global__ void __launch_bounds__(kTensorThreads) tensor_product_kernel(const __grid_constant__ Product<T> p) {
  if constexpr (kHasTensorCores) {
    const int64_t tiles = tile_count<T, TensorTile<A, B>>(p);
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      compute_tile<T, A, B>(p, place_of_tile<T, TensorTile<A, B>>(p, tile));
    }
  }
}

template <class T, class A, class B>
void launch_tiles(Product<T> p, std::size_t workspace_limit) {
  set_slab(p.a.terms, A::Reader::kTermStep);
  set_slab(p.b.terms, B::Reader::kTermStep);
  launch_product<TensorTile<A, B>>(tensor_product_kernel<T, A, B>, p, A::kDepth, sizeof(Stages<A, B>), workspace_limit);
}

}  // namespace

template <class T>
void multiply_on_tensor_cores(Product<T> p, std::size_t workspace_limit) {
  if (device_capability() < 8) {
    throw std::runtime_error(
        "float16, bfloat16 and tf32 need the tensor cores of compute capability 8.0 or newer, and this GPU is older");
  }
  using ByTerms = Chunks<T, true>;
  using ByLines = Chunks<T, false>;
  const bool a_by_terms = by_chunks(p.a, true), b_by_terms = by_chunks(p.b, true);
  const bool a_by_lines = by_chunks(p.a, false), b_by_lines = by_chunks(p.b, false);
  if (a_by_terms && b_by_terms) return launch_tiles<T, ByTerms, ByTerms>(p, workspace_limit);
  if (a_by_lines && b_by_lines) return launch_tiles<T, ByLines, ByLines>(p, workspace_limit);
  if (a_by_terms && b_by_lines) return launch_tiles<T, ByTerms, ByLines>(p, workspace_limit);
  if (a_by_lines && b_by_terms) {
    exchange_operands(p);
    return launch_tiles<T, ByTerms, ByLines>(p, workspace_limit);
  }
  launch_tiles<T, Cells<T, 128>, Cells<T, 64>>(p, workspace_limit);
}

template void multiply_on_tensor_cores(Product<float>, std::size_t);
template void multiply_on_tensor_cores(Product<Float16>, std::size_t);
template void multiply_on_tensor_cores(Product<BFloat16>, std::size_t);

}  // namespace fastconv::cuda
