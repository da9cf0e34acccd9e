// Average pooling and its gradient against loops over the definition.
#include <algorithm>
#include <cmath>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "cases.hpp"
#include "check.hpp"

namespace fastconv::FASTCONV_BACKEND {
namespace {

using test::GuardedTensor;
using test::Integers;
using test::Memory;
using test::Shape;
using test::with_threads;

constexpr Divisor kDivisors[] = {
    {.fixed = 0, .count_padding = true}, {.fixed = 0, .count_padding = false}, {.fixed = 4, .count_padding = true}};

std::vector<PoolShape> shapes() {
  std::vector<PoolShape> all = test::pool_cases("avg-pool kernels");
  PoolShape adaptive{.n = 2, .c = 3, .axis = {}};
  adaptive.axis[0] = {.in = 3, .out = 2, .even = true};
  adaptive.axis[1] = {.in = 4, .out = 7, .even = true};
  adaptive.axis[2] = {.in = 33, .out = 5, .even = true};
  PoolShape whole{.n = 2, .c = 37, .axis = {}};
  for (Axis& a : whole.axis) a.even = true;
  whole.axis[1].in = 9;
  whole.axis[2].in = 13;
  all.push_back(adaptive);
  all.push_back(whole);
  return all;
}

Shape input_shape(const PoolShape& s) { return {s.n, s.c, s.axis[0].in, s.axis[1].in, s.axis[2].in}; }
Shape output_shape(const PoolShape& s) { return {s.n, s.c, s.axis[0].out, s.axis[1].out, s.axis[2].out}; }

// Calls visit(d, h, w) for each real cell of a window, and returns what its sum is divided by.
template <class Visit>
double for_each_cell_of_window(const PoolShape& s, Divisor divisor, std::array<int64_t, 3> at, Visit visit) {
  std::array<Range, 3> window, padded;
  for (std::size_t i = 0; i < 3; ++i) {
    const Axis& a = s.axis[i];
    const int64_t first = a.even ? at[i] * a.in / a.out : at[i] * a.stride - a.pad_begin;
    const int64_t last = a.even ? ((at[i] + 1) * a.in + a.out - 1) / a.out : first + a.filter;
    window[i] = {std::max<int64_t>(first, 0), std::min(last, a.in)};
    padded[i] = a.even ? window[i] : Range{first, std::min(last, a.in + a.pad_end)};
  }
  double real = 0;
  for (int64_t d = window[0].begin; d < window[0].end; ++d)
    for (int64_t h = window[1].begin; h < window[1].end; ++h)
      for (int64_t w = window[2].begin; w < window[2].end; ++w) {
        visit(d, h, w);
        ++real;
      }
  if (divisor.fixed != 0) return static_cast<double>(divisor.fixed);
  const auto counted = static_cast<double>(padded[0].size() * padded[1].size() * padded[2].size());
  return std::max(1.0, divisor.count_padding ? counted : real);
}

template <class T>
void check_forward(const PoolShape& s, const Memory& memory, Divisor divisor) {
  Integers integers(1);
  GuardedTensor<T> x(input_shape(s), memory);
  x.fill([&] { return integers.next<T>(); });
  with_threads([&](int threads) {
    GuardedTensor<T> y(output_shape(s), memory);
    avg_pool_fprop(s, x.readable(), y.tensor(), divisor);
    y.for_each([&](T value, int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) {
      double sum = 0;
      const double by = for_each_cell_of_window(s, divisor, {z, p, q}, [&](int64_t d, int64_t h, int64_t w) {
        sum += static_cast<double>(x(n, c, d, h, w));
      });
      CHECK_EQUAL(value, static_cast<T>(sum / by), "memory", memory, "threads", threads);
    });
    CHECK(y.guards_intact(), "memory", memory, "threads", threads);
  });
}

template <class T>
void check_backward(const PoolShape& s, const Memory& memory, Divisor divisor) {
  Integers integers(2);
  GuardedTensor<T> dy(output_shape(s), memory);
  dy.fill([&] { return integers.next<T>(); });
  GuardedTensor<double> expected(input_shape(s), test::kNCHW, 0.0);
  dy.for_each([&](T gradient, int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) {
    const double by = for_each_cell_of_window(s, divisor, {z, p, q}, [](int64_t, int64_t, int64_t) {});
    for_each_cell_of_window(s, divisor, {z, p, q}, [&](int64_t d, int64_t h, int64_t w) {
      expected(n, c, d, h, w) += static_cast<double>(gradient) / by;
    });
  });
  with_threads([&](int threads) {
    GuardedTensor<T> dx(input_shape(s), memory);
    avg_pool_dgrad(s, dy.readable(), dx.tensor(), divisor);
    CHECK(dx.distance(expected) <= 100 * static_cast<double>(std::numeric_limits<T>::epsilon()), "memory", memory,
          "threads", threads, "error", dx.distance(expected));
    CHECK(dx.guards_intact(), "memory", memory, "threads", threads);
  });
}

void for_each_problem(auto check) {
  for (const PoolShape& s : shapes()) {
    for (const Memory& memory : test::kMemories) {
      for (const Divisor& divisor : kDivisors) check(s, memory, divisor);
    }
  }
}

}  // namespace

TEST(forward_divides_the_sum_of_each_window) {
  for_each_problem(check_forward<float>);
  for_each_problem(check_forward<double>);
}

TEST(backward_shares_each_gradient_among_its_window) {
  for_each_problem(check_backward<float>);
  for_each_problem(check_backward<double>);
}

}  // namespace fastconv::FASTCONV_BACKEND
