// The three passes of convolution, by every algorithm, against one loop over the definition.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "cases.hpp"
#include "check.hpp"

namespace fastconv::FASTCONV_BACKEND {
namespace {

using test::can_serve;
using test::GuardedTensor;
using test::Integers;
using test::Memory;
using test::with_threads;

constexpr Algorithm kAlgorithms[] = {Algorithm::im2col, Algorithm::implicit, Algorithm::winograd, Algorithm::direct};

// Operands of small integers and what the passes make of them, exactly.
struct Problem {
  std::string name;
  ConvShape shape;
  GuardedTensor<double> x, w, dy, y, dx, dw;
};

// Calls visit(n, k, c of the group, z, p, q, t, r, f, d, h, i) for every product of the definition.
template <class Visit>
void for_each_product(const ConvShape& s, const GuardedTensor<double>& y, const GuardedTensor<double>& w, Visit visit) {
  const auto& [depth, height, width] = s.axis;
  y.for_each([&](double, int64_t n, int64_t k, int64_t z, int64_t p, int64_t q) {
    for (int64_t c = 0; c < w.shape()[1]; ++c)
      for (int64_t t = 0; t < depth.filter; ++t)
        for (int64_t r = 0; r < height.filter; ++r)
          for (int64_t f = 0; f < width.filter; ++f) {
            const int64_t d = z * depth.stride + t * depth.dilation - depth.pad_begin;
            const int64_t h = p * height.stride + r * height.dilation - height.pad_begin;
            const int64_t i = q * width.stride + f * width.dilation - width.pad_begin;
            if (d < 0 || d >= depth.in || h < 0 || h >= height.in || i < 0 || i >= width.in) continue;
            visit(n, k, c, z, p, q, t, r, f, d, h, i);
          }
  });
}

Problem make_problem(const test::ConvCase& given) {
  const ConvShape& s = given.shape;
  const auto& [depth, height, width] = s.axis;
  const test::Shape x{s.n, s.c, depth.in, height.in, width.in};
  const test::Shape w{s.k, s.c / s.groups, depth.filter, height.filter, width.filter};
  const test::Shape y{s.n, s.k, depth.out, height.out, width.out};
  const auto tensor = [](const test::Shape& shape) { return GuardedTensor<double>(shape, test::kNCHW, 0.0); };
  Problem p{given.name, s, tensor(x), tensor(w), tensor(y), tensor(y), tensor(x), tensor(w)};
  Integers integers(1);
  for (auto* operand : {&p.x, &p.w, &p.dy}) operand->fill([&] { return integers.next<double>(-3, 3); });
  for_each_product(s, p.y, p.w,
                   [&](int64_t n, int64_t k, int64_t c, int64_t z, int64_t row, int64_t q, int64_t t, int64_t r,
                       int64_t f, int64_t d, int64_t h, int64_t i) {
                     const int64_t channel = k / (s.k / s.groups) * (s.c / s.groups) + c;
                     const double value = p.x(n, channel, d, h, i), weight = p.w(k, c, t, r, f),
                                  gradient = p.dy(n, k, z, row, q);
                     p.y(n, k, z, row, q) += value * weight;
                     p.dx(n, channel, d, h, i) += weight * gradient;
                     p.dw(k, c, t, r, f) += value * gradient;
                   });
  return p;
}

std::vector<Problem> make_problems() {
  std::vector<Problem> all;
  for (const char* section : {"kernels", "larger kernels"}) {
    if (!test::kLargeProblems && section != std::string("kernels")) continue;
    for (const test::ConvCase& given : test::conv_cases(section)) all.push_back(make_problem(given));
  }
  return all;
}

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = make_problems();
  return all;
}

// How far a result may be from the exact one: Winograd's transforms round, sums of small integers do not.
template <class T>
double tolerance(Algorithm algorithm, const GuardedTensor<double>& exact) {
  if (algorithm != Algorithm::winograd) return 0;
  double largest = 0;
  exact.for_each([&](double cell, auto...) { largest = std::max(largest, std::abs(cell)); });
  return largest * (sizeof(T) == 4 ? 1e-5 : 2e-14);
}

// Calls check(problem, options, memory of x and y, memory of w, threads) for all algorithms that serve the pass.
template <class Check>
void for_each_call(Pass pass, Check check) {
  const Memory memories_w[] = {test::kNCHW, test::kMemories[3]};
  for (const Problem& p : problems()) {
    for (const Algorithm algorithm : kAlgorithms) {
      if (!can_serve(algorithm, pass, p.shape)) continue;
      for (const Memory& memory : test::kMemories) {
        for (const Memory& memory_w : memories_w) {
          with_threads([&](int threads) { check(p, ConvOptions{.algorithm = algorithm}, memory, memory_w, threads); });
        }
      }
    }
  }
}

#define CALL \
  "problem", p.name, "algorithm", to_string(options.algorithm), "memory", memory, "w", memory_w, "threads", threads

template <class T>
void check_forward(bool finish) {
  for_each_call(Pass::forward, [&](const Problem& p, const ConvOptions& options, const Memory& memory,
                                   const Memory& memory_w, int threads) {
    const auto x = p.x.to<T>(memory), w = p.w.to<T>(memory_w);
    GuardedTensor<T> y(p.y.shape(), memory);
    auto expected = p.y.to<double>(test::kNCHW);
    std::vector<T> bias(static_cast<std::size_t>(2 * p.shape.k));
    Integers integers(2);
    for (T& cell : bias) cell = integers.next<T>(-20, 20);
    if (finish) {
      expected.for_each([&](double& cell, int64_t, int64_t k, auto...) {
        cell = std::max(cell + static_cast<double>(bias[static_cast<std::size_t>(2 * k)]), 0.0);
      });
    }
    const Vector<const T> bias_vector{finish ? bias.data() : nullptr, 2};
    conv_fprop(p.shape, x.readable(), w.readable(), bias_vector, y.tensor(), finish, options);
    CHECK(y.distance(expected) <= tolerance<T>(options.algorithm, p.y), CALL);
    CHECK(y.guards_intact(), CALL);
  });
}

template <class T>
void check_input_gradient() {
  for_each_call(Pass::input, [&](const Problem& p, const ConvOptions& options, const Memory& memory,
                                 const Memory& memory_w, int threads) {
    const auto dy = p.dy.to<T>(memory), w = p.w.to<T>(memory_w);
    GuardedTensor<T> dx(p.dx.shape(), memory);
    conv_dgrad(p.shape, dy.readable(), w.readable(), dx.tensor(), options);
    CHECK(dx.distance(p.dx) <= tolerance<T>(options.algorithm, p.dx), CALL);
    CHECK(dx.guards_intact(), CALL);
  });
}

template <class T>
void check_filter_gradient() {
  for_each_call(Pass::weight, [&](const Problem& p, const ConvOptions& options, const Memory& memory,
                                  const Memory& memory_w, int threads) {
    const auto dy = p.dy.to<T>(memory), x = p.x.to<T>(memory);
    GuardedTensor<T> dw(p.dw.shape(), memory_w);
    conv_wgrad(p.shape, dy.readable(), x.readable(), dw.tensor(), options);
    CHECK(dw.distance(p.dw) <= tolerance<T>(options.algorithm, p.dw), CALL);
    CHECK(dw.guards_intact(), CALL);
  });
}

}  // namespace

TEST(forward_in_float32) {
  check_forward<float>(false);
  check_forward<float>(true);
}

TEST(forward_in_float64) { check_forward<double>(true); }

TEST(input_gradient) {
  check_input_gradient<float>();
  check_input_gradient<double>();
}

TEST(filter_gradient) {
  check_filter_gradient<float>();
  check_filter_gradient<double>();
}

TEST(a_filter_gradient_over_more_pixels_than_a_block_of_k_and_few_for_the_filters) {
  if (!test::kLargeProblems) return test::skip("too large for this backend");
  const Problem p = make_problem(test::conv_cases("many filters").at(0));
  const auto dy = p.dy.to<float>(test::kNCHW), x = p.x.to<float>(test::kNCHW);
  GuardedTensor<float> dw(p.dw.shape(), test::kNCHW);
  conv_wgrad(p.shape, dy.readable(), x.readable(), dw.tensor(), {.algorithm = Algorithm::implicit});
  CHECK(dw.same_cells(p.dw.to<float>(test::kNCHW)) && dw.guards_intact());
}

TEST(a_workspace_that_is_too_small_is_an_error_before_anything_is_written) {
  if (!test::kImplicitNeedsWorkspace) return test::skip("this backend needs none");
  const Problem& p = problems()[0];
  const auto x = p.x.to<float>(test::kNCHW), w = p.w.to<float>(test::kNCHW);
  GuardedTensor<float> y(p.y.shape(), test::kNCHW, -5.0f);
  const ConvOptions options{.algorithm = Algorithm::implicit, .workspace_limit = 1};
  CHECK(THROWS(std::invalid_argument, conv_fprop(p.shape, x.readable(), w.readable(), {}, y.tensor(), false, options)));
  y.for_each([](float cell, auto...) { CHECK_EQUAL(cell, -5.0f); });
}

TEST(the_plan_is_an_algorithm_that_serves) {
  for (const Problem& p : problems()) {
    const auto x = p.x.to<float>(test::kNCHW), w = p.w.to<float>(test::kNCHW), y = p.y.to<float>(test::kNCHW);
    const auto sx = x.readable().stride, sw = w.readable().stride, sy = y.readable().stride;
    for (const Pass pass : {Pass::forward, Pass::input, Pass::weight}) {
      const ConvStrides strides = pass == Pass::forward ? ConvStrides{sx, sw, sy}
                                  : pass == Pass::input ? ConvStrides{sy, sw, sx}
                                                        : ConvStrides{sy, sx, sw};
      for (const bool float32 : {false, true}) {
        const Algorithm chosen = plan_conv(pass, p.shape, strides, float32, {}).algorithm;
        CHECK(chosen != Algorithm::automatic && can_serve(chosen, pass, p.shape), "problem", p.name);
      }
      for (const Algorithm algorithm : kAlgorithms) {
        const bool refused =
            THROWS(std::invalid_argument, plan_conv(pass, p.shape, strides, true, {.algorithm = algorithm}));
        CHECK_EQUAL(refused, !can_serve(algorithm, pass, p.shape), "problem", p.name, "algorithm",
                    to_string(algorithm));
      }
    }
  }
}

}  // namespace fastconv::FASTCONV_BACKEND
