// Batch normalisation against its definition in double, in every memory order and on several threads.
#include <cmath>
#include <limits>
#include <vector>

#include "arrays.hpp"
#include "backend.hpp"
#include "check.hpp"

namespace fastconv::FASTCONV_BACKEND {
namespace {

using test::GuardedTensor;
using test::Integers;
using test::Memory;
using test::Shape;
using test::with_threads;

std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

template <class T>
GuardedTensor<T> random_tensor(const Shape& shape, const Memory& memory, unsigned seed) {
  Integers integers(seed);
  GuardedTensor<T> t(shape, memory);
  t.fill([&] { return integers.next<T>(-8, 8) / T(4); });
  return t;
}

// Mean and variance of each channel; the wider type keeps what thousands of additions would round away.
template <class T>
void moments(const GuardedTensor<T>& x, std::vector<double>& mean, std::vector<double>& variance) {
  const auto& [n, channels, d, h, w] = x.shape();
  const auto count = static_cast<long double>(n * d * h * w);
  std::vector<long double> sum(index(channels), 0), squares(index(channels), 0);
  x.for_each([&](T cell, int64_t, int64_t c, auto...) { sum[index(c)] += static_cast<long double>(cell); });
  x.for_each([&](T cell, int64_t, int64_t c, auto...) {
    const long double from_mean = static_cast<long double>(cell) - sum[index(c)] / count;
    squares[index(c)] += from_mean * from_mean;
  });
  mean.clear();
  variance.clear();
  for (std::size_t c = 0; c < sum.size(); ++c) {
    mean.push_back(static_cast<double>(sum[c] / count));
    variance.push_back(static_cast<double>(squares[c] / count));
  }
}

template <class T>
std::vector<T> as(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

template <class T>
constexpr double kBound = 100.0 * static_cast<double>(std::numeric_limits<T>::epsilon());

template <class T>
void check_forward(const Shape& shape, const Memory& memory) {
  const auto x = random_tensor<T>(shape, memory, 1);
  const std::size_t channels = index(shape[1]);
  std::vector<double> mean, variance;
  moments(x, mean, variance);
  std::vector<T> scale(channels), bias(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    scale[c] = static_cast<T>(c % 5) - T(1.5);
    bias[c] = static_cast<T>(c % 3) - T(0.5);
  }
  for (const bool relu : {false, true}) {
    with_threads([&](int threads) {
      std::vector<T> our_mean(channels), our_variance(channels);
      batch_moments<T>(shape, x.readable(), our_mean.data(), our_variance.data());
      for (std::size_t c = 0; c < channels; ++c) {
        CHECK(std::abs(static_cast<double>(our_mean[c]) - mean[c]) < kBound<T>, "channel", c, "threads", threads);
        CHECK(std::abs(static_cast<double>(our_variance[c]) - variance[c]) < kBound<T>, "channel", c, memory);
      }
      GuardedTensor<T> y(shape, memory);
      batch_norm_fprop<T>(shape, x.readable(), our_mean.data(), scale.data(), bias.data(), y.tensor(), relu);
      y.for_each([&](T cell, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) {
        double want = (static_cast<double>(x(n, c, d, h, w)) - mean[index(c)]) * static_cast<double>(scale[index(c)]) +
                      static_cast<double>(bias[index(c)]);
        if (relu && want < 0) want = 0;
        CHECK(std::abs(static_cast<double>(cell) - want) < kBound<T>, "channel", c, memory, "threads", threads);
      });
      CHECK(y.guards_intact(), memory, "threads", threads);
    });
  }
}

template <class T>
void check_gradients(const Shape& shape, const Memory& dy_memory, const Memory& x_memory) {
  const auto dy = random_tensor<T>(shape, dy_memory, 2), x = random_tensor<T>(shape, x_memory, 3);
  const std::size_t channels = index(shape[1]);
  const double count = static_cast<double>(shape[0] * shape[2] * shape[3] * shape[4]);
  std::vector<double> mean, variance, rstd(channels), weight(channels), db(channels, 0.0), dw(channels, 0.0);
  moments(x, mean, variance);
  for (std::size_t c = 0; c < channels; ++c) {
    rstd[c] = 1 / std::sqrt(variance[c] + 1e-5);
    weight[c] = static_cast<double>(c % 5) - 1.5;
  }
  const auto normalised = [&](int64_t n, int64_t c, auto... at) {
    return (static_cast<double>(x(n, c, at...)) - mean[index(c)]) * rstd[index(c)];
  };
  dy.for_each([&](T cell, int64_t n, int64_t c, auto... at) {
    db[index(c)] += static_cast<double>(cell);
    dw[index(c)] += static_cast<double>(cell) * normalised(n, c, at...);
  });
  std::vector<T> first;
  with_threads([&](int threads) {
    GuardedTensor<T> dx(shape, x_memory);
    std::vector<T> our_dw(channels), our_db(channels);
    batch_norm_grad<T>(shape, dy.readable(), x.readable(), as<T>(mean).data(), as<T>(rstd).data(), as<T>(weight).data(),
                       dx.tensor(), our_dw.data(), our_db.data());
    for (std::size_t c = 0; c < channels; ++c) {
      CHECK(std::abs(static_cast<double>(our_db[c]) - db[c]) <= kBound<T> * count, "channel", c);
      CHECK(std::abs(static_cast<double>(our_dw[c]) - dw[c]) <= kBound<T> * count, "channel", c);
    }
    std::vector<T> cells;
    dx.for_each([&](T cell, int64_t n, int64_t c, auto... at) {
      const std::size_t i = index(c);
      const double want =
          weight[i] * rstd[i] *
          (static_cast<double>(dy(n, c, at...)) - db[i] / count - normalised(n, c, at...) * dw[i] / count);
      CHECK(std::abs(static_cast<double>(cell) - want) < kBound<T>, "channel", c, "dy", dy_memory, "x", x_memory);
      cells.push_back(cell);
    });
    CHECK(dx.guards_intact(), x_memory, "threads", threads);
    if (first.empty()) first = cells;
    CHECK(first == cells, "other bits on", threads, "threads");
  });
}

const Shape kShapes[] = {
    {3, 5, 1, 7, 11},   // fewer channels than lanes
    {2, 35, 3, 4, 5},   // three axes, lanes and a rest
    {5, 19, 1, 29, 1},  // a width of one
    {4, 37, 1, 29, 31}  // worth several threads
};

}  // namespace

TEST(forward) {
  for (const Shape& shape : kShapes) {
    for (const Memory& memory : test::kMemories) {
      check_forward<float>(shape, memory);
      check_forward<double>(shape, memory);
    }
  }
}

TEST(gradients) {
  for (const Shape& shape : kShapes) {
    for (const Memory& dy_memory : {test::kNCHW, test::kNHWC}) {
      for (const Memory& x_memory : test::kMemories) {
        check_gradients<float>(shape, dy_memory, x_memory);
        check_gradients<double>(shape, dy_memory, x_memory);
      }
    }
  }
}

TEST(rows_longer_than_the_gathered_part) {
  check_forward<float>({2, 3, 1, 2, 1100}, test::kMemories[2]);
  check_gradients<float>({2, 3, 1, 2, 1100}, test::kNCHW, test::kMemories[4]);
}

TEST(a_mean_far_from_zero_keeps_its_variance) {
  GuardedTensor<double> x({4, 2, 1, 5, 3}, test::kNCHW);
  Integers integers(4);
  x.fill([&] { return 1e9 + integers.next<double>(); });
  std::vector<double> mean, variance;
  moments(x, mean, variance);
  double our_mean[2], our_variance[2];
  batch_moments<double>(x.shape(), x.readable(), our_mean, our_variance);
  for (std::size_t c = 0; c < 2; ++c) CHECK(std::abs(our_variance[c] / variance[c] - 1) < 1e-6, "channel", c);
}

TEST(infinity_and_nan_reach_the_moments_of_their_channel_alone) {
  GuardedTensor<float> x({2, 3, 1, 2, 3}, test::kNCHW, 1.0f);
  x(0, 0, 0, 0, 0) = std::numeric_limits<float>::infinity();
  x(1, 1, 0, 1, 2) = std::numeric_limits<float>::quiet_NaN();
  float mean[3], variance[3];
  batch_moments<float>(x.shape(), x.readable(), mean, variance);
  CHECK(std::isinf(mean[0]) && std::isnan(variance[0]) && std::isnan(mean[1]) && std::isnan(variance[1]));
  CHECK_EQUAL(mean[2], 1.0f);
  CHECK_EQUAL(variance[2], 0.0f);
}

}  // namespace fastconv::FASTCONV_BACKEND
