// The weight gradient, with vectors along the pixels: products of rows.
//
//   dw[K, C] = dy[K, pixels] x[C, pixels]^T
//
// Both operands lie along the pixels, so nothing is packed: a tile of sums stays in registers while a few rows of each
// pass, and the lanes of each sum are added at the end. A task is a block of filters by a block of channels over a part
// of the pixels, cut into chunks whose rows fit the caches.
#include <algorithm>
#include <array>
#include <memory>

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "cpu/walk/parts.hpp"
#include "pointwise.hpp"

namespace fastconv::cpu::pointwise {
namespace {

using namespace tuning::pointwise;

constexpr int64_t kMaxDot = 8;  // rows or columns of the largest tile

// How the sums are cut; a function of the shape alone, so that every thread count gives the same bits.
struct Cut {
  Blocks rows, cols;      // filters and channels
  int64_t images;         // of a chunk, if it holds whole ones
  int64_t plane, pixels;  // chunks of a plane, and pixels of all but the last of them
  int64_t chunks;         // of the batch
  Blocks parts;           // of the chunks

  Cut(const ConvShape& s, std::size_t itemsize) : rows(s.k, kBlockRows), cols(s.c, kBlockColumns), parts(0, 1) {
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
  void add(const Chunk& chunk, const Tensor<const T>& dy, const Tensor<const T>& x) noexcept {
    std::array<const T*, kBlockRows + kMaxDot> a;
    std::array<const T*, kBlockColumns + kMaxDot> b;
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

  void write(const Tensor<T>& dw) const noexcept {
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

template <class T>
class DotProductsJob final : public Job {
 public:
  DotProductsJob(const Reduction<T>& r, std::size_t workspace_limit)
      : Job(kDotProducts), s_(r.shape), dy_(r.dy), x_(r.x), dw_(r.dw), cut_(s_, sizeof(T)) {
    const std::size_t block = array_bytes(BlockSums<T>::size(cut_.rows.size, cut_.cols.size), 1, sizeof(T));
    block_size_ = static_cast<int64_t>(block / sizeof(T));
    if (parted()) shared_sums_ = scratch_.shared<T>(blocks() * cut_.parts.count, block_size_);
    if (!parted()) own_sums_ = scratch_.each<T>(block_size_);
    scratch_.fit(workspace_limit, threads_for(s_.flops()), "implicit");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    const int64_t parts = cut_.parts.count;
    parallel_for(blocks() * parts, scratch_.threads(), [&](int64_t task, int slot) noexcept {
      BlockSums<T> sums = sums_of(task / parts, parted() ? at(shared_sums_) + task * block_size_ : at(own_sums_, slot));
      std::fill_n(sums.sums, block_size_, T(0));
      const Range chunks = cut_.parts[task % parts];
      for (int64_t i = chunks.begin; i < chunks.end; ++i) sums.add(chunk_at(s_, cut_, i), dy_, x_);
      if (!parted()) sums.write(dw_);
    });
    if (!parted()) return;
    parallel_for(blocks(), scratch_.threads(), [&](int64_t block, int) noexcept {
      const BlockSums<T> total = sums_of(block, at(shared_sums_) + block * parts * block_size_);
      sum_parts(total.sums, parts, block_size_, block_size_);
      total.write(dw_);
    });
  }

 private:
  int64_t blocks() const { return cut_.rows.count * cut_.cols.count; }
  bool parted() const { return cut_.parts.count > 1; }
  BlockSums<T> sums_of(int64_t block, T* sums) const {
    return {.rows = cut_.rows[block % cut_.rows.count], .cols = cut_.cols[block / cut_.rows.count], .sums = sums};
  }

  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
  Cut cut_;
  int64_t block_size_;          // elements, whole cache lines
  SharedArray<T> shared_sums_;  // of every part of every block
  ThreadArray<T> own_sums_;     // or of each thread's block
};

}  // namespace

template <class T>
bool serves(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x) {
  const Extents plane = out_extents(s);
  const bool large_tiles = gemm_kernels<T>().dot_rows * gemm_kernels<T>().dot_cols >= kMinDotSums;  // or packing wins
  return large_tiles && (s.k <= kMaxNarrow || s.c < kMaxNarrow) && s.pointwise() && s.pixels() > 1 &&
         s.n * s.pixels() >= kMinPixels && spatial_stride(dy, plane) == 1 && spatial_stride(x, plane) == 1;
}

template <class T>
void plan(const Reduction<T>& r, std::size_t workspace_limit, Jobs& jobs) {
  jobs.push_back(std::make_unique<DotProductsJob<T>>(r, workspace_limit));
}

template bool serves(const ConvShape&, const Tensor<const float>&, const Tensor<const float>&);
template bool serves(const ConvShape&, const Tensor<const double>&, const Tensor<const double>&);
template void plan(const Reduction<float>&, std::size_t, Jobs&);
template void plan(const Reduction<double>&, std::size_t, Jobs&);

}  // namespace fastconv::cpu::pointwise
