// The weight gradient, with vectors along the pixels: products of rows.
//
//   dw[K, C] = dy[K, pixels] x[C, pixels]^T
//
// Both operands lie along k, so nothing is packed: a tile of sums stays in registers while a few rows of each pass, and
// the lanes of each sum are added at the end. A task is a block of filters by a block of channels over a part of the
// pixels, cut into chunks whose rows fit the caches.
#include <algorithm>
#include <array>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "pointwise.hpp"

namespace fastconv::cpu::pointwise {
namespace {

constexpr int64_t kMinPixels = 512;                    // of the batch: fewer cost less than the sums of their lanes
constexpr int64_t kMaxNarrow = 32;                     // filters, or channels and one: more are worth packing
constexpr int64_t kBlockRows = 256, kBlockCols = 128;  // filters and channels of a task
constexpr int64_t kMaxChunk = 768;                     // pixels: the rows of a tile fit the first-level cache,
constexpr int64_t kChunkBytes = 640 << 10;             // a block's the second
constexpr int64_t kMaxDot = 8;                         // rows or columns of the largest tile

// How the sums are cut; a function of the shape alone, so that every thread count gives the same bits.
struct Cut {
  Blocks rows, cols;      // filters and channels
  int64_t images;         // of a chunk, if it holds whole ones
  int64_t plane, pixels;  // chunks of a plane, and pixels of all but the last of them
  int64_t chunks;         // of the batch
  Blocks parts;           // of the chunks

  Cut(const ConvShape& s, std::size_t itemsize) : rows(s.k, kBlockRows), cols(s.c, kBlockCols), parts(0, 1) {
    const int64_t fit = kChunkBytes / ((rows.size + cols.size) * static_cast<int64_t>(itemsize));
    const int64_t chunk = std::min(kMaxChunk, fit / kMaxLanes * kMaxLanes);
    images = std::clamp<int64_t>(chunk / s.pixels(), 1, s.n);
    plane = ceil_div(s.pixels(), chunk);
    pixels = std::min(s.pixels(), ceil_div(ceil_div(s.pixels(), plane), kMaxLanes) * kMaxLanes);
    chunks = ceil_div(s.n, images) * plane;
    parts = Blocks(chunks, ceil_div(chunks, ceil_div(kEnoughTasks, rows.count * cols.count)));
  }
};

// Pixels of some images.
struct Chunk {
  Range images, pixels;
};
Chunk chunk_at(const ConvShape& s, const Cut& cut, int64_t i) {
  const int64_t n = i / cut.plane * cut.images, begin = i % cut.plane * cut.pixels;
  return {{n, std::min(s.n, n + cut.images)}, {begin, std::min(s.pixels(), begin + cut.pixels)}};
}

// Sums of a block of rows by one of columns: [tile of columns][tile of rows][dot_cols][dot_rows].
template <class T>
struct BlockSums {
  const GemmKernels<T>& kernel = gemm_kernels<T>();
  Range rows, cols;
  T* sums;

  static int64_t size(int64_t rows, int64_t cols) {
    const GemmKernels<T>& kernel = gemm_kernels<T>();
    return ceil_div(rows, kernel.dot_rows) * ceil_div(cols, kernel.dot_cols) * kernel.dot_rows * kernel.dot_cols;
  }
  T* tile(int64_t row, int64_t col) const {
    const int64_t row_tiles = ceil_div(rows.size(), kernel.dot_rows);
    return sums + (col / kernel.dot_cols * row_tiles + row / kernel.dot_rows) * kernel.dot_rows * kernel.dot_cols;
  }

  // The sums over one chunk are added.
  void add(const Chunk& chunk, const Tensor<const T>& dy, const Tensor<const T>& x) {
    std::array<const T*, kBlockRows + kMaxDot> a;
    std::array<const T*, kBlockCols + kMaxDot> b;
    // Tiles that end beyond the last row take it again.
    for (int64_t i = 0; i < rows.size() + kMaxDot; ++i) {
      const int64_t k = std::min(rows.begin + i, rows.end - 1);
      a[static_cast<std::size_t>(i)] = dy.at(chunk.images.begin, k) + chunk.pixels.begin;
    }
    for (int64_t j = 0; j < cols.size() + kMaxDot; ++j) {
      const int64_t c = std::min(cols.begin + j, cols.end - 1);
      b[static_cast<std::size_t>(j)] = x.at(chunk.images.begin, c) + chunk.pixels.begin;
    }
    for (int64_t col = 0; col < cols.size(); col += kernel.dot_cols) {
      for (int64_t row = 0; row < rows.size(); row += kernel.dot_rows) {
        kernel.dot(chunk.images.size(), chunk.pixels.size(), a.data() + row, dy.stride[0], b.data() + col, x.stride[0],
                   kernel.dot_rows * dy.stride[1], row == 0 ? kernel.dot_cols * x.stride[1] : 0, tile(row, col));
      }
    }
  }

  void write(const Tensor<T>& dw) const {
    for (int64_t row = 0; row < rows.size(); row += kernel.dot_rows) {
      const int64_t row_end = std::min(rows.size(), row + kernel.dot_rows);
      for (int64_t col = 0; col < cols.size(); col += kernel.dot_cols) {
        const T* values = tile(row, col);
        const int64_t col_end = std::min(cols.size(), col + kernel.dot_cols);
        for (int64_t i = row; i < row_end; ++i, ++values) {
          for (int64_t j = col; j < col_end; ++j) {
            *dw.at(rows.begin + i, cols.begin + j) = values[(j - col) * kernel.dot_rows];
          }
        }
      }
    }
  }
};

}  // namespace

template <class T>
bool wgrad_serves(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x) {
  const Extents plane = out_extents(s);
  const bool large_tiles = gemm_kernels<T>().dot_rows * gemm_kernels<T>().dot_cols >= 24;  // or packing wins
  return large_tiles && (s.k <= kMaxNarrow || s.c < kMaxNarrow) && s.pointwise() && s.pixels() > 1 &&
         s.n * s.pixels() >= kMinPixels && spatial_stride(dy, plane) == 1 && spatial_stride(x, plane) == 1;
}

template <class T>
void wgrad(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw,
           std::size_t workspace_limit) {
  const Cut cut(s, sizeof(T));
  const int64_t blocks = cut.rows.count * cut.cols.count;
  const bool several = cut.parts.count > 1;
  // The workspace: sums of every part of every block, or of each thread's block.
  const std::size_t block_bytes = array_bytes(BlockSums<T>::size(cut.rows.size, cut.cols.size), 1, sizeof(T));
  const std::size_t shared = several ? array_bytes(cut.parts.count, blocks, block_bytes) : 0;
  const std::size_t thread = several ? 0 : block_bytes;
  int threads = threads_within(workspace_limit, shared, thread, num_threads(), "implicit");
  if (s.flops() < kSerialFlops) threads = 1;
  const Workspace memory(shared + static_cast<std::size_t>(threads) * thread);

  const auto sums_of = [&](int64_t block, int64_t i) {
    T* sums = memory.at<T>(static_cast<std::size_t>(i) * block_bytes);
    return BlockSums<T>{
        .rows = cut.rows[block % cut.rows.count], .cols = cut.cols[block / cut.rows.count], .sums = sums};
  };
  const std::size_t block_size = block_bytes / sizeof(T);
  parallel_for(blocks * cut.parts.count, threads, [&](int64_t task, int slot) {
    const int64_t block = task / cut.parts.count, part = task % cut.parts.count;
    BlockSums<T> sums = sums_of(block, several ? task : slot);
    std::fill_n(sums.sums, block_size, T(0));
    for (int64_t i = cut.parts[part].begin; i < cut.parts[part].end; ++i) sums.add(chunk_at(s, cut, i), dy, x);
    if (!several) sums.write(dw);
  });
  if (!several) return;
  parallel_for(blocks, threads, [&](int64_t block, int) {
    const BlockSums<T> total = sums_of(block, block * cut.parts.count);
    for (std::size_t part = 1; part < static_cast<std::size_t>(cut.parts.count); ++part) {
      for (std::size_t i = 0; i < block_size; ++i) total.sums[i] += total.sums[part * block_size + i];
    }
    total.write(dw);
  });
}

template bool wgrad_serves(const ConvShape&, const Tensor<const float>&, const Tensor<const float>&);
template bool wgrad_serves(const ConvShape&, const Tensor<const double>&, const Tensor<const double>&);
template void wgrad(const ConvShape&, const Tensor<const float>&, const Tensor<const float>&, const Tensor<float>&,
                    std::size_t);
template void wgrad(const ConvShape&, const Tensor<const double>&, const Tensor<const double>&, const Tensor<double>&,
                    std::size_t);

}  // namespace fastconv::cpu::pointwise
