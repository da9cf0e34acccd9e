// column_sum and the bias gradient against loops; small integers add up exactly in any order.
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "check.hpp"

namespace fastconv::FASTCONV_BACKEND {
namespace {

using test::GuardedTensor;
using test::Integers;
using test::with_threads;

// A vector of `size` results `stride` cells apart, with guard cells between and around them.
template <class T>
class GuardedVector {
 public:
  GuardedVector(int64_t size, int64_t stride) : cells_({1, 1, 1, size, stride}, test::kNCHW), stride_(stride) {}
  Vector<T> vector() { return {&cells_(0, 0, 0, 0, 0), stride_}; }
  void check(const std::vector<double>& expected, int threads) const {
    cells_.for_each([&](T cell, int64_t, int64_t, int64_t, int64_t i, int64_t gap) {
      const double value = gap == 0 ? expected[static_cast<std::size_t>(i)] : -77;
      CHECK_EQUAL(static_cast<double>(cell), value, "sum", i, "gap", gap, "threads", threads);
    });
    CHECK(cells_.guards_intact(), "threads", threads);
  }

 private:
  GuardedTensor<T> cells_;
  int64_t stride_;
};

template <class T>
void check_column_sum(int64_t rows, int64_t cols, const test::Memory& memory, int64_t sums_stride) {
  Integers integers(1);
  GuardedTensor<T> cells({1, 1, 1, rows, cols}, memory);
  cells.fill([&] { return integers.next<T>(); });
  std::vector<double> expected(static_cast<std::size_t>(cols), 0.0);
  cells.for_each([&](T cell, int64_t, int64_t, int64_t, int64_t, int64_t j) {
    expected[static_cast<std::size_t>(j)] += static_cast<double>(cell);
  });
  const Tensor<const T> t = cells.readable();
  with_threads([&](int threads) {
    GuardedVector<T> sums(cols, sums_stride);
    column_sum<T>({t.data, rows, cols, t.stride[3], t.stride[4]}, sums.vector());
    sums.check(expected, threads);
  });
}

template <class T>
void check_bias_gradient(const test::Shape& shape, const test::Memory& memory) {
  Integers integers(2);
  GuardedTensor<T> dy(shape, memory);
  dy.fill([&] { return integers.next<T>(); });
  std::vector<double> expected(static_cast<std::size_t>(shape[1]), 0.0);
  dy.for_each(
      [&](T cell, int64_t, int64_t k, auto...) { expected[static_cast<std::size_t>(k)] += static_cast<double>(cell); });
  with_threads([&](int threads) {
    GuardedVector<T> db(shape[1], 2);
    conv_bgrad(shape, dy.readable(), db.vector());
    db.check(expected, threads);
  });
}

}  // namespace

TEST(column_sums) {
  for (const test::Memory& memory : test::kMemories) {
    for (const int64_t stride : {1, 3}) {
      check_column_sum<float>(7, 5, memory, stride);
      check_column_sum<double>(19, 33, memory, stride);
      check_column_sum<float>(1, 17, memory, stride);
      check_column_sum<float>(23, 1, memory, stride);
      check_column_sum<float>(401, 299, memory, stride);  // worth several threads
    }
  }
}

TEST(column_sums_of_no_rows_are_zero) { check_column_sum<float>(0, 5, test::kNCHW, 1); }

TEST(float32_adds_up_in_float64) {
  const std::vector<float> cells{16777216.0f, 1.0f, 1.0f, 1.0f, 1.0f};  // 2**24: the ones would vanish one by one
  float sum = 0;
  column_sum<float>({cells.data(), 5, 1, 1, 1}, {&sum, 1});
  CHECK_EQUAL(sum, 16777220.0f);
}

TEST(bias_gradients) {
  for (const test::Memory& memory : test::kMemories) {
    check_bias_gradient<float>({3, 5, 1, 7, 11}, memory);
    check_bias_gradient<double>({2, 35, 3, 4, 5}, memory);
    check_bias_gradient<float>({4, 37, 1, 29, 31}, memory);  // worth several threads
  }
}

TEST(bias_gradients_of_an_empty_batch_are_zero) { check_bias_gradient<float>({0, 5, 1, 7, 11}, test::kNCHW); }

}  // namespace fastconv::FASTCONV_BACKEND
