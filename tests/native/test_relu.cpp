// ReLU, its gradient and a sum through it, in place and not, on sizes around the block that one task takes.
#include <cmath>
#include <limits>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "check.hpp"

namespace fastconv::FASTCONV_BACKEND {
namespace {

using test::Integers;
using test::with_threads;

constexpr std::size_t kGuard = 32;

// `size` random cells between guards.
template <class T>
struct GuardedArray {
  std::vector<T> cells;
  int64_t size;

  GuardedArray(int64_t size_, Integers& integers) : cells(static_cast<std::size_t>(size_) + 2 * kGuard), size(size_) {
    for (T& cell : cells) cell = integers.next<T>();
  }
  T* data() { return cells.data() + kGuard; }
  bool own(std::size_t i) const { return i >= kGuard && i < cells.size() - kGuard; }
};

template <class T>
void check_relu(int64_t size) {
  Integers integers(1);
  with_threads([&](int threads) {
    GuardedArray<T> x(size, integers), y(size, integers);
    const GuardedArray<T> before_x = x, before_y = y;
    relu_fprop<T>(size, x.data(), y.data());
    relu_fprop<T>(size, x.data(), x.data());
    for (std::size_t i = 0; i < x.cells.size(); ++i) {
      const T positive = before_x.cells[i] > 0 ? before_x.cells[i] : T(0);
      CHECK_EQUAL(y.cells[i], x.own(i) ? positive : before_y.cells[i], "size", size, "threads", threads);
      CHECK_EQUAL(x.cells[i], x.own(i) ? positive : before_x.cells[i], "size", size, "threads", threads);
    }
  });
}

template <class T>
void check_relu_grad(int64_t size) {
  Integers integers(2);
  with_threads([&](int threads) {
    GuardedArray<T> dy(size, integers), y(size, integers), dx(size, integers);
    const GuardedArray<T> before_dy = dy, before_dx = dx;
    relu_dgrad<T>(size, dy.data(), y.data(), dx.data());
    relu_dgrad<T>(size, dy.data(), y.data(), dy.data());
    for (std::size_t i = 0; i < dy.cells.size(); ++i) {
      const T gradient = y.cells[i] > 0 ? before_dy.cells[i] : T(0);
      CHECK_EQUAL(dx.cells[i], dx.own(i) ? gradient : before_dx.cells[i], "size", size, "threads", threads);
      CHECK_EQUAL(dy.cells[i], dy.own(i) ? gradient : before_dy.cells[i], "size", size, "threads", threads);
    }
  });
}

template <class T>
void check_add(int64_t size) {
  Integers integers(3);
  for (const bool relu : {false, true}) {
    with_threads([&](int threads) {
      GuardedArray<T> a(size, integers), b(size, integers), y(size, integers);
      const GuardedArray<T> before_y = y;
      add<T>(size, a.data(), b.data(), y.data(), relu);
      for (std::size_t i = 0; i < y.cells.size(); ++i) {
        const T sum = a.cells[i] + b.cells[i];
        const T want = relu && sum < 0 ? T(0) : sum;
        CHECK_EQUAL(y.cells[i], y.own(i) ? want : before_y.cells[i], "size", size, "threads", threads);
      }
    });
  }
}

}  // namespace

TEST(relu_keeps_what_is_positive) {
  for (const int64_t size : {0, 1, 37, 16383, 16384, 16385, 50001}) {
    check_relu<float>(size);
    check_relu<double>(size);
  }
}

TEST(relu_grad_keeps_gradients_where_y_is_positive) {
  for (const int64_t size : {0, 1, 37, 16383, 16384, 16385, 50001}) {
    check_relu_grad<float>(size);
    check_relu_grad<double>(size);
  }
}

TEST(nan_passes_relu_and_stops_its_gradient) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float y = 0, dx = -1;
  relu_fprop(1, &nan, &y);
  CHECK(std::isnan(y));
  const float dy = 3;
  relu_dgrad(1, &dy, &nan, &dx);
  CHECK_EQUAL(dx, 0.0f);
}

}  // namespace fastconv::FASTCONV_BACKEND
