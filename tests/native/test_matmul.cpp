// The matrix product against loops, on extents around the tiles and blocks of every instruction set.
#include <algorithm>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "check.hpp"

namespace fastconv::FASTCONV_BACKEND {
namespace {

using test::GuardedTensor;
using test::Integers;
using test::Memory;

template <class T>
GuardedTensor<T> make_matrix(int64_t rows, int64_t cols, const Memory& memory, Integers& integers) {
  GuardedTensor<T> a({1, 1, 1, rows, cols}, memory);
  a.fill([&] { return integers.next<T>(); });
  return a;
}

template <class T, class Tensor>
Matrix<T> as_matrix(const Tensor& tensor, int64_t rows, int64_t cols) {
  return {tensor.data, rows, cols, tensor.stride[3], tensor.stride[4]};
}

template <class T>
void check_product(int64_t m, int64_t n, int64_t k, const Memory& memory_a, const Memory& memory_b,
                   const Memory& memory_c, bool relu) {
  Integers integers(1);
  const auto a = make_matrix<T>(m, k, memory_a, integers), b = make_matrix<T>(k, n, memory_b, integers);
  std::vector<T> bias(static_cast<std::size_t>(2 * n));
  for (T& cell : bias) cell = integers.next<T>(-40, 40);
  GuardedTensor<T> expected({1, 1, 1, m, n}, test::kNCHW);
  expected.for_each([&](T& cell, int64_t, int64_t, int64_t, int64_t i, int64_t j) {
    cell = bias[static_cast<std::size_t>(2 * j)];
    for (int64_t l = 0; l < k; ++l) cell += a(0, 0, 0, i, l) * b(0, 0, 0, l, j);
    if (relu) cell = std::max(cell, T(0));
  });
  test::with_threads([&](int threads) {
    GuardedTensor<T> c({1, 1, 1, m, n}, memory_c);
    matmul(as_matrix<const T>(a.readable(), m, k), as_matrix<const T>(b.readable(), k, n), {bias.data(), 2},
           as_matrix<T>(c.tensor(), m, n), relu);
    CHECK(c.same_cells(expected) && c.guards_intact(), "m", m, "n", n, "k", k, "a", memory_a, "b", memory_b, "c",
          memory_c, "relu", relu, "threads", threads);
  });
}

}  // namespace

TEST(extents_around_the_tiles) {
  for (const int64_t m : {1, 5, 13, 15, 29}) {
    for (const int64_t n : {1, 7, 9, 31, 33, 65}) {
      for (const int64_t k : {1, 3, 17}) {
        check_product<float>(m, n, k, test::kNCHW, test::kNCHW, test::kNCHW, false);
        check_product<double>(m, n, k, test::kNCHW, test::kNCHW, test::kNCHW, true);
      }
    }
  }
}

TEST(every_memory_order) {
  for (const Memory& a : test::kMemories) {
    for (const Memory& b : test::kMemories) {
      for (const Memory& c : test::kMemories) {
        check_product<float>(17, 35, 11, a, b, c, true);
        check_product<double>(35, 17, 11, a, b, c, false);
      }
    }
  }
}

TEST(several_blocks_of_k_and_several_tasks) {
  for (const Memory& memory : {test::kMemories[0], test::kMemories[3]}) {
    check_product<float>(61, 203, 1100, memory, test::kNCHW, test::kNCHW, true);  // few rows: the left side is shared
    check_product<double>(203, 61, 600, test::kNCHW, memory, test::kNCHW, false);
  }
  check_product<float>(31, 20, 7000, test::kNCHW, test::kNCHW, test::kNCHW, true);  // long ones: few columns
}

TEST(panels_of_one_vector_and_of_one_column) {
  for (const int64_t n : {1, 2, 5, 9, 17, 25, 44, 49, 51}) {
    for (const Memory& memory : {test::kMemories[0], test::kMemories[3]}) {
      check_product<float>(61, n, 700, memory, test::kNCHW, test::kNCHW, true);
      check_product<double>(61, n, 300, memory, test::kNCHW, test::kNCHW, false);
    }
  }
}

TEST(more_large_tiles_than_a_gpu_has_multiprocessors) {
  for (const Memory& memory : {test::kNCHW, test::kMemories[3]}) {
    check_product<float>(1100, 1900, 11, memory, test::kNCHW, memory, true);
  }
}

TEST(an_empty_sum_is_the_bias) { check_product<float>(5, 37, 0, test::kNCHW, test::kNCHW, test::kNCHW, true); }

}  // namespace fastconv::FASTCONV_BACKEND
