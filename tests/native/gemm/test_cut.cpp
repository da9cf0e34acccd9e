// How a product is cut: every lane in one panel, every panel in one task, every term in one block and part.
#include "cpu/gemm/cut.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "check.hpp"
#include "cpu/walk/patches.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kExtents[] = {1, 2, 5, 6, 7, 13, 14, 15, 17, 31, 32, 33, 47, 65, 100, 257, 1000, 12345};

// Panels follow each other, and their lanes, put together, are 0 to extent.
void check_panels(const Panels& panels, int64_t extent, int64_t width, int64_t vector, int64_t singles) {
  int64_t lane = 0;
  for (int64_t i = 0; i < panels.count(); ++i) {
    const Range lanes = panels.lanes(i);
    CHECK_EQUAL(lanes.begin, lane, "extent", extent, "width", width, "panel", i);
    CHECK(lanes.size() > 0 && lanes.size() <= panels.width(i), "extent", extent, "width", width, "panel", i);
    CHECK_EQUAL(panels.first(i + 1), panels.first(i) + panels.width(i), "extent", extent, "panel", i);
    const bool whole = panels.width(i) == width, some_vectors = panels.width(i) % vector == 0;
    CHECK(whole || some_vectors || (panels.width(i) == 1 && singles > 0), "extent", extent, "panel", i);
    lane = lanes.end;
  }
  CHECK_EQUAL(lane, extent, "width", width);
  CHECK_EQUAL(panels.padded(), panels.first(panels.count()), "extent", extent);
  CHECK(panels.padded() < extent + std::max(width, vector), "extent", extent, "width", width);
}

// Blocks of `size` cover 0 to `count`, none of them empty.
void check_blocks(int64_t count, int64_t size) {
  CHECK(size > 0, "count", count);
  const Blocks blocks(count, size);
  int64_t at = 0;
  for (int64_t i = 0; i < blocks.count; ++i) {
    CHECK_EQUAL(blocks[i].begin, at, "count", count, "size", size);
    CHECK(blocks[i].size() > 0, "count", count, "size", size);
    at = blocks[i].end;
  }
  CHECK_EQUAL(at, count, "size", size);
}

template <class T>
void check_cut(const Product<T>& product) {
  const ProductCut cut = cut_product(product);
  const GemmKernels<T>& kernel = gemm_kernels<T>();
  const int64_t lanes = vector_lanes<T>();
  const bool by_rows = cut.left_in_place && product.left->in_place({0, product.rows}).term_stride == 1;
  CHECK_EQUAL(cut.mr, by_rows ? kernel.rows_mr : kernel.mr);
  CHECK_EQUAL(cut.nr, by_rows ? kernel.rows_nr : kernel.nr);
  CHECK(cut.mr * cut.nr <= kMaxTile && cut.mr <= kMaxWidth && cut.nr <= kMaxWidth);
  check_panels(cut.left, product.rows, cut.mr, cut.mr, 0);
  check_panels(cut.right, product.columns, cut.nr, lanes, by_rows ? lanes / 4 : 0);
  check_blocks(cut.left.count(), cut.task_left);
  check_blocks(cut.right.count(), cut.task_right);
  CHECK(cut.term_block <= kernel.k_block || (by_rows && product.share_right));
  CHECK_EQUAL(cut.term_blocks, ceil_div(product.terms, cut.term_block), "terms", product.terms);
  check_blocks(product.terms, cut.term_block);
  CHECK(cut.parts >= 1 && cut.parts <= cut.term_blocks, "terms", product.terms, "parts", cut.parts);
  const int64_t part = ceil_div(cut.term_blocks, cut.parts);
  check_blocks(cut.term_blocks, part);
  CHECK_EQUAL(Blocks(cut.term_blocks, part).count, cut.parts, "terms", product.terms);
  if (product.share_left || product.share_right) CHECK_EQUAL(cut.parts, 1);
}

}  // namespace

TEST(panels_of_all_extents) {
  for (int64_t extent = 1; extent < 200; ++extent) {
    for (const int64_t width : {6, 14, 32}) check_panels(Panels(extent, width), extent, width, width, 0);
    for (const int64_t vector : {4, 8, 16}) {
      for (const int64_t singles : {int64_t{0}, vector / 4}) {
        for (const int64_t vectors : {2, 4})
          check_panels(Panels(extent, vectors * vector, vector, singles), extent, vectors * vector, vector, singles);
      }
    }
  }
}

TEST(products_are_cut_without_gaps) {
  const auto check = []<class T>(T) {
    for (const int64_t rows : kExtents) {
      for (const int64_t columns : kExtents) {
        for (const int64_t terms : {int64_t{1}, int64_t{300}, int64_t{5000}}) {
          // The left operand lies by terms, by rows, or as neither.
          for (const auto& [lane_stride, term_stride] : {std::pair{int64_t{1}, rows}, {terms, int64_t{1}}, {2, 3}}) {
            for (int shared = 0; shared < 3; ++shared) {
              const T cell{};  // is not read
              Product<T> product;
              product.rows = rows;
              product.columns = columns;
              product.terms = terms;
              product.share_left = shared == 1;
              product.share_right = shared == 2;
              product.left = std::make_unique<MatrixOperand<T>>(&cell, lane_stride, term_stride);
              product.right = std::make_unique<MatrixOperand<T>>(&cell, 1, columns);
              check_cut(product);
            }
          }
        }
      }
    }
  };
  check(float{});
  check(double{});
}

}  // namespace fastconv::cpu
