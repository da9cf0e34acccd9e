// The matrix product's tiles: every entry point at every row count against a plain loop.
#include <vector>

#include "cells.hpp"
#include "cpu/runtime/isa.hpp"

namespace fastconv::cpu {
namespace {

using test::Cells;
using test::Integers;
using test::integers;

constexpr int64_t kDepths[] = {0, 1, 2, 3, 8, 13};  // terms of a sum

// What a tile starts from and ends with. The vectors are as long as a kernel may read.
template <class T>
struct Ends {
  std::vector<T> init, row_bias, col_bias;
  bool relu;

  Epilogue<T> epilogue() const {
    return {row_bias.empty() ? nullptr : row_bias.data(), col_bias.empty() ? nullptr : col_bias.data(), relu};
  }
  const T* first_init() const { return init.empty() ? nullptr : init.data(); }
};

// Calls visit(rows, k, ends) for each of up to `most` rows, each depth and each way that a tile can start and end.
template <class T, class Visit>
void for_each_tile(int most, int width, int init_stride, Visit visit) {
  Integers random(5);
  for (int rows = 1; rows <= most; ++rows) {
    for (const int64_t k : kDepths) {
      for (int ways = 0; ways < 16; ++ways) {
        const auto some = [&](int bit, int64_t count) { return integers<T>(random, (ways & bit) != 0 ? count : 0); };
        visit(rows, k,
              Ends<T>{some(1, (rows - 1) * init_stride + width), some(2, rows), some(4, init_stride), (ways & 8) != 0});
      }
    }
  }
}

// left(k, i) and right(k, j) are the factors of term k of element (i, j).
template <class T, class Left, class Right>
void expect_tile(int64_t k, int rows, int columns, Left left, Right right, const Ends<T>& ends, int init_stride, T* out,
                 int64_t out_stride) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      T sum = ends.init.empty() ? T(0) : ends.init[static_cast<std::size_t>(i * init_stride + j)];
      for (int64_t term = 0; term < k; ++term) sum += left(term, i) * right(term, j);
      if (!ends.row_bias.empty()) sum += ends.row_bias[static_cast<std::size_t>(i)];
      if (!ends.col_bias.empty()) sum += ends.col_bias[static_cast<std::size_t>(j)];
      out[i * out_stride + j] = ends.relu && sum < 0 ? T(0) : sum;
    }
  }
}

// A tile whose right operand is a panel, or rows `b_stride` apart, and whose left one has element (k, i) at
// i * row_step + k * k_step.
template <class T>
void check_tile(typename GemmKernels<T>::Tile tile, int most, int width, int init_stride, int64_t b_stride,
                int64_t row_step, int64_t k_step, int64_t a_stride) {
  for_each_tile<T>(most, width, init_stride, [&](int rows, int64_t k, const Ends<T>& ends) {
    Integers random(static_cast<unsigned>(rows));
    const auto a = integers<T>(random, k > 0 ? (rows - 1) * row_step + (k - 1) * k_step + 1 : 0);
    const auto b = integers<T>(random, k > 0 ? (k - 1) * b_stride + width : 0);
    const int64_t out_stride = width + 3;
    Cells<T> out(rows * out_stride), expected = out;
    tile(k, a.data(), a_stride, b.data(), b_stride, ends.first_init(), out.data(), out_stride, rows, ends.epilogue(),
         {b.data(), 1});
    expect_tile<T>(
        k, rows, width, [&](int64_t j, int i) { return a[static_cast<std::size_t>(i * row_step + j * k_step)]; },
        [&](int64_t j, int column) { return b[static_cast<std::size_t>(j * b_stride + column)]; }, ends, init_stride,
        expected.data(), out_stride);
    CHECK(out == expected, "rows", rows, "k", k, "width", width);
  });
}

}  // namespace

TEST(left_operands_by_panels) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    for (const int64_t a_stride : {gemm.mr, gemm.mr + 5}) {
      check_tile<T>(gemm.tile, gemm.mr, gemm.nr, gemm.nr, gemm.nr, 1, a_stride, a_stride);
      check_tile<T>(gemm.tile, gemm.mr, gemm.nr, gemm.nr, gemm.nr + 3, 1, a_stride, a_stride);
      check_tile<T>(gemm.tile_vector, gemm.mr, vector_lanes<T>(), gemm.nr, vector_lanes<T>(), 1, a_stride, a_stride);
    }
  });
}

TEST(left_operands_of_pitched_rows) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    check_tile<T>(gemm.tile_pitched, gemm.mr, gemm.nr, gemm.nr, gemm.nr, kRowPitch, 1, 0);
  });
}

TEST(left_operands_by_rows) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    for (int vectors = 0; vectors <= kMaxRowsVectors; ++vectors) {
      const int width = vectors == 0 ? 1 : vectors * vector_lanes<T>();
      CHECK_EQUAL(gemm.tiles_by_rows[vectors] != nullptr, width <= gemm.rows_nr, "vectors", vectors);
      if (width > gemm.rows_nr) continue;
      for (const int64_t a_stride : {13, 29})
        check_tile<T>(gemm.tiles_by_rows[vectors], gemm.rows_mr, width, gemm.rows_nr, width, a_stride, 1, a_stride);
    }
  });
}

TEST(scattered_left_operands) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const std::vector<int32_t> offsets{7, 0, 3, 40, 11, 2, 30, 23, 8, 31, 1, 39, 5};
    for (const int vectors : {1, 2}) {
      const int width = vectors * vector_lanes<T>();
      for_each_tile<T>(gemm.mr, width, gemm.nr, [&](int rows, int64_t k, const Ends<T>& ends) {
        Integers random(static_cast<unsigned>(rows));
        const int64_t a_stride = 6, out_stride = width + 2;
        const auto a = integers<T>(random, (rows - 1) * a_stride + 41), b = integers<T>(random, k * width);
        Cells<T> out(rows * out_stride), expected = out;
        (vectors == 1 ? gemm.tile_scattered_vector : gemm.tile_scattered)(
            k, a.data(), a_stride, offsets.data(), b.data(), ends.first_init(), out.data(), out_stride, rows,
            ends.epilogue(), {a.data(), 1});
        expect_tile<T>(
            k, rows, width,
            [&](int64_t j, int i) {
              return a[static_cast<std::size_t>(i * a_stride + offsets[static_cast<std::size_t>(j)])];
            },
            [&](int64_t j, int column) { return b[static_cast<std::size_t>(j * width + column)]; }, ends, gemm.nr,
            expected.data(), out_stride);
        CHECK(out == expected, "rows", rows, "k", k, "width", width);
      });
    }
  });
}

TEST(right_operands_packed_on_the_way) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const int64_t mr = gemm.mr, nr = gemm.nr, b_stride = nr + 7, out_stride = nr + 1;
    for_each_tile<T>(gemm.mr, gemm.nr, gemm.nr, [&](int rows, int64_t k, const Ends<T>& ends) {
      Integers random(static_cast<unsigned>(rows));
      const auto a = integers<T>(random, k * mr), b = integers<T>(random, k > 0 ? (k - 1) * b_stride + nr : 0);
      const auto right = [&](int64_t j, int column) { return b[static_cast<std::size_t>(j * b_stride + column)]; };
      Cells<T> out(rows * out_stride), expected = out, panel(k * nr), expected_panel = panel;
      gemm.tile_packing(k, a.data(), mr, b.data(), b_stride, panel.data(), ends.first_init(), out.data(), out_stride,
                        rows, ends.epilogue());
      expect_tile<T>(
          k, rows, gemm.nr, [&](int64_t j, int i) { return a[static_cast<std::size_t>(j * mr + i)]; }, right, ends,
          gemm.nr, expected.data(), out_stride);
      for (int64_t j = 0; j < k; ++j) {
        for (int column = 0; column < nr; ++column) expected_panel.data()[j * nr + column] = right(j, column);
      }
      CHECK(out == expected, "rows", rows, "k", k);
      CHECK(panel == expected_panel, "rows", rows, "k", k);
    });
  });
}

TEST(outputs_of_a_plane_as_lanes) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const int most = vector_lanes<T>();
    const std::vector<int32_t> offsets{5, 0, 3, 21, 11, 2, 20, 17, 8, 19, 1, 18, 4};
    for_each_tile<T>(gemm.mr, gemm.nr, gemm.nr, [&](int rows, int64_t k, const Ends<T>& ends) {
      if (!ends.init.empty()) return;  // it starts from zero
      Integers random(static_cast<unsigned>(rows));
      const int lanes = 1 + static_cast<int>(k + rows) % most;
      const int64_t mr = gemm.mr, b_next = 50, out_next = 40, out_stride = 100;
      const auto a = integers<T>(random, k * mr), b = integers<T>(random, b_next + 22 + most);
      Cells<T> out(rows * out_stride), expected = out;
      gemm.tile_planes(k, a.data(), mr, b.data(), b_next, offsets.data(), out.data(), out_stride, out_next, rows, lanes,
                       ends.epilogue());
      for (int v = 0; v < 2; ++v) {
        Ends<T> of_vector = ends;
        if (!ends.col_bias.empty())
          of_vector.col_bias.erase(of_vector.col_bias.begin(), of_vector.col_bias.begin() + v * most);
        expect_tile<T>(
            k, rows, lanes, [&](int64_t j, int i) { return a[static_cast<std::size_t>(j * mr + i)]; },
            [&](int64_t j, int lane) {
              return b[static_cast<std::size_t>(v * b_next + offsets[static_cast<std::size_t>(j)] + lane)];
            },
            of_vector, 0, expected.data() + v * out_next, out_stride);
      }
      CHECK(out == expected, "rows", rows, "k", k, "lanes", lanes);
    });
  });
}

TEST(relu_keeps_nan) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    std::vector<T> a(static_cast<std::size_t>(gemm.mr), T(-1)), b(static_cast<std::size_t>(gemm.nr), T(1));
    b[3] = test::kNaN<T>;
    Cells<T> out(gemm.mr * gemm.nr), expected = out;
    gemm.tile(1, a.data(), gemm.mr, b.data(), gemm.nr, nullptr, out.data(), gemm.nr, gemm.mr, {nullptr, nullptr, true},
              {b.data(), 0});
    for (int64_t i = 0; i < gemm.mr * gemm.nr; ++i) expected.data()[i] = i % gemm.nr == 3 ? test::kNaN<T> : T(0);
    CHECK(out == expected);
  });
}

TEST(products_of_rows) {
  test::for_floats([]<class T>() {
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    Integers random(7);
    for (const int64_t images : {1, 3}) {
      for (const int64_t pixels : {1, 7, 16, 64, 75}) {
        const int64_t a_image = pixels + 2, b_image = pixels + 5;
        std::vector<std::vector<T>> left, right;
        std::vector<const T*> a, b;
        const auto add_row = [&](std::vector<std::vector<T>>& rows, std::vector<const T*>& pointers, int64_t image) {
          rows.push_back(integers<T>(random, (images - 1) * image + pixels));
          pointers.push_back(rows.back().data());
        };
        for (int i = 0; i < gemm.dot_rows; ++i) add_row(left, a, a_image);
        for (int j = 0; j < gemm.dot_cols; ++j) add_row(right, b, b_image);
        Cells<T> sums(random, gemm.dot_rows * gemm.dot_cols), expected = sums;
        gemm.dot(images, pixels, a.data(), a_image, b.data(), b_image, 0, 0, sums.data());
        for (std::size_t j = 0; j < right.size(); ++j) {
          for (std::size_t i = 0; i < left.size(); ++i) {
            T& sum = expected.data()[j * left.size() + i];
            for (int64_t n = 0; n < images; ++n) {
              for (int64_t p = 0; p < pixels; ++p) sum += a[i][n * a_image + p] * b[j][n * b_image + p];
            }
          }
        }
        CHECK(sums == expected, "images", images, "pixels", pixels);
      }
    }
  });
}

}  // namespace fastconv::cpu
