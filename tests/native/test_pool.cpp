// Max-pooling and its gradient against loops over the definition.
#include <limits>
#include <stdexcept>
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

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

std::vector<PoolShape> shapes() { return test::pool_cases("max-pool kernels"); }

Shape input_shape(const PoolShape& s) { return {s.n, s.c, s.axis[0].in, s.axis[1].in, s.axis[2].in}; }
Shape output_shape(const PoolShape& s) { return {s.n, s.c, s.axis[0].out, s.axis[1].out, s.axis[2].out}; }

struct Maximum {
  double value;
  int64_t index;
};

// The window's cells in row order: the first NaN, else the first of the largest.
template <class T>
Maximum window_maximum(const PoolShape& s, const GuardedTensor<T>& x, int64_t n, int64_t c, int64_t z, int64_t p,
                       int64_t q) {
  const auto& [depth, height, width] = s.axis;
  using Limits = std::numeric_limits<T>;
  Maximum best{static_cast<double>(Limits::has_infinity ? -Limits::infinity() : Limits::lowest()), -1};
  for (int64_t t = 0; t < depth.filter; ++t)
    for (int64_t r = 0; r < height.filter; ++r)
      for (int64_t f = 0; f < width.filter; ++f) {
        const int64_t d = z * depth.stride + t * depth.dilation - depth.pad_begin;
        const int64_t h = p * height.stride + r * height.dilation - height.pad_begin;
        const int64_t w = q * width.stride + f * width.dilation - width.pad_begin;
        if (d < 0 || d >= depth.in || h < 0 || h >= height.in || w < 0 || w >= width.in) continue;
        const double value = static_cast<double>(x(n, c, d, h, w));
        const int64_t index = (d * height.in + h) * width.in + w;
        if (value != value) return {value, index};
        if (best.index < 0 || value > best.value) best = {value, index};
      }
  return best;
}

template <class T>
void check_forward(const PoolShape& s, const Memory& memory, const GuardedTensor<T>& x) {
  with_threads([&](int threads) {
    GuardedTensor<T> y(output_shape(s), memory);
    GuardedTensor<int64_t> indices(output_shape(s), memory);
    max_pool_fprop(s, x.readable(), y.tensor(), indices.tensor());
    y.for_each([&](T value, int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) {
      const Maximum expected = window_maximum(s, x, n, c, z, p, q);
      const bool both_nan = value != value && expected.value != expected.value;
      CHECK(both_nan || static_cast<double>(value) == expected.value, "memory", memory, "threads", threads, "y", value);
      CHECK_EQUAL(indices(n, c, z, p, q), expected.index, "memory", memory, "threads", threads);
    });
    CHECK(y.guards_intact() && indices.guards_intact(), "memory", memory, "threads", threads);

    GuardedTensor<T> alone(output_shape(s), memory);
    max_pool_fprop(s, x.readable(), alone.tensor(), {});
    alone.for_each([&](T value, auto... at) {
      CHECK(value == y(at...) || (value != value && y(at...) != y(at...)), "memory", memory, "threads", threads);
    });
    CHECK(alone.guards_intact(), "memory", memory, "threads", threads);
  });
}

template <class T>
void check_backward(const PoolShape& s, const Memory& memory) {
  Integers integers(5);
  GuardedTensor<T> dy(output_shape(s), memory);
  GuardedTensor<int64_t> indices(output_shape(s), memory);
  dy.fill([&] { return integers.next<T>(); });
  indices.fill([&] { return integers.next<int64_t>(-1, static_cast<int>(s.cells()) - 1); });
  GuardedTensor<T> expected(input_shape(s), test::kNCHW, T(0));
  dy.for_each([&](T gradient, int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) {
    const int64_t i = indices(n, c, z, p, q);
    if (i < 0) return;
    const int64_t width = s.axis[2].in, height = s.axis[1].in;
    expected(n, c, i / width / height, i / width % height, i % width) += gradient;
  });
  with_threads([&](int threads) {
    GuardedTensor<T> dx(input_shape(s), memory);
    max_pool_dgrad(s, dy.readable(), indices.readable(), dx.tensor());
    CHECK(dx.same_cells(expected), "memory", memory, "threads", threads);
    CHECK(dx.guards_intact(), "memory", memory, "threads", threads);
  });
}

// The number of the tap that reads cell `index` at output (z, p, q).
int64_t tap_number(const PoolShape& s, int64_t index, int64_t z, int64_t p, int64_t q) {
  const auto& [depth, height, width] = s.axis;
  const auto tap = [](const Axis& a, int64_t cell, int64_t o) {
    return (cell + a.pad_begin - o * a.stride) / a.dilation;
  };
  const int64_t t = tap(depth, index / width.in / height.in, z), r = tap(height, index / width.in % height.in, p);
  return (t * height.filter + r) * width.filter + tap(width, index % width.in, q);
}

// Offsets name the taps of the maxima, and lead dy to the cells that the indices lead it to.
template <class T, bool kRectified>
void check_offsets(const PoolShape& s, const Memory& memory, const GuardedTensor<T>& x) {
  Integers integers(6);
  GuardedTensor<T> dy(output_shape(s), memory), expected(input_shape(s), test::kNCHW, T(0));
  dy.fill([&] { return integers.next<T>(); });
  with_threads([&](int threads) {
    GuardedTensor<T> y(output_shape(s), memory), dx(input_shape(s), memory);
    GuardedTensor<uint8_t> offsets(output_shape(s), memory);
    max_pool_offsets_fprop(s, x.readable(), y.tensor(), offsets.tensor(), kRectified);
    expected.fill([] { return T(0); });
    y.for_each([&](T value, int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) {
      const Maximum maximum = window_maximum(s, x, n, c, z, p, q);
      const bool both_nan = value != value && maximum.value != maximum.value;
      CHECK(both_nan || static_cast<double>(value) == maximum.value, "memory", memory, "threads", threads, "y", value);
      const int64_t i = kRectified && !(maximum.value > 0) ? -1 : maximum.index;
      CHECK_EQUAL(offsets(n, c, z, p, q), i < 0 ? kNoTap : tap_number(s, i, z, p, q), "memory", memory);
      const int64_t width = s.axis[2].in, height = s.axis[1].in;
      if (i >= 0) expected(n, c, i / width / height, i / width % height, i % width) += dy(n, c, z, p, q);
    });
    max_pool_offsets_dgrad(s, dy.readable(), offsets.readable(), dx.tensor());
    CHECK(dx.same_cells(expected), "memory", memory, "threads", threads);
    CHECK(y.guards_intact() && offsets.guards_intact() && dx.guards_intact(), "memory", memory, "threads", threads);
  });
}

template <class T>
void for_each_problem(void (*check)(const PoolShape&, const Memory&, const GuardedTensor<T>&), auto make_cell) {
  for (const PoolShape& s : shapes()) {
    for (const Memory& memory : test::kMemories) {
      GuardedTensor<T> x(input_shape(s), memory);
      x.fill(make_cell);
      check(s, memory, x);
    }
  }
}

}  // namespace

TEST(forward_finds_the_first_maximum) {
  Integers integers(1);  // of nine values, so that windows hold equal ones
  for_each_problem<float>(check_forward, [&] { return integers.next<float>(); });
  for_each_problem<double>(check_forward, [&] { return integers.next<double>(); });
}

TEST(forward_of_windows_too_large_for_tables) {
  PoolShape s{.n = 1, .c = 3, .axis = {}};  // 65,792 taps
  s.axis[1] = {.in = 258, .filter = 257, .stride = 2, .pad_begin = 1};
  s.axis[2] = {.in = 260, .filter = 256, .stride = 3, .pad_end = 1};
  for (Axis& a : s.axis) a.out = output_extent(a);
  Integers integers(4);
  for (const Memory& memory : {test::kNCHW, test::kNHWC}) {
    GuardedTensor<float> x(input_shape(s), memory);
    x.fill([&] { return integers.next<float>(-1000000, 1000000); });
    check_forward(s, memory, x);
  }
}

TEST(forward_of_integers) {
  Integers integers(3);
  const auto extreme = [&]<class T>(T) {
    constexpr T kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max();
    const int i = integers.next<int>(0, 5);
    return i == 0 ? kMost : i < 3 ? kLeast : integers.next<T>(0, 4);
  };
  for_each_problem<int8_t>(check_forward, [&] { return extreme(int8_t{}); });
  for_each_problem<uint8_t>(check_forward, [&] { return extreme(uint8_t{}); });
  for_each_problem<int32_t>(check_forward, [&] { return extreme(int32_t{}); });
  for_each_problem<int64_t>(check_forward, [&] { return integers.next<int64_t>(); });
}

TEST(forward_passes_nan_and_infinities) {
  Integers integers(2);
  for_each_problem<float>(check_forward, [&] {
    const float special[] = {-kInfinity<float>, std::numeric_limits<float>::quiet_NaN(), kInfinity<float>, 0.0f};
    const auto i = integers.next<std::size_t>(0, 5);
    return i < 4 ? special[i] : -kInfinity<float>;
  });
}

TEST(offsets_name_the_taps_of_the_maxima) {
  Integers integers(7);
  for_each_problem<float>(check_offsets<float, false>, [&] { return integers.next<float>(); });
  for_each_problem<float>(check_offsets<float, true>, [&] { return integers.next<float>(); });
  for_each_problem<double>(check_offsets<double, true>, [&] { return integers.next<double>(); });
}

TEST(backward_adds_gradients_at_their_indices) {
  for (const PoolShape& s : shapes()) {
    for (const Memory& memory : test::kMemories) {
      check_backward<float>(s, memory);
      check_backward<double>(s, memory);
    }
  }
}

TEST(backward_refuses_an_index_outside_and_writes_nothing) {
  const PoolShape s = shapes()[0];
  for (const int64_t wrong : {int64_t{-2}, s.cells(), std::numeric_limits<int64_t>::min()}) {
    const GuardedTensor<float> dy(output_shape(s), test::kNCHW, 1.0f);
    GuardedTensor<int64_t> indices(output_shape(s), test::kNCHW, 0);
    indices(1, 4, 0, 2, 2) = wrong;
    GuardedTensor<float> dx(input_shape(s), test::kNCHW, -5.0f);
    CHECK(THROWS(std::invalid_argument, max_pool_dgrad(s, dy.readable(), indices.readable(), dx.tensor())), "index",
          wrong);
    dx.for_each([&](float cell, auto...) { CHECK_EQUAL(cell, -5.0f, "index", wrong); });
    CHECK(THROWS(std::invalid_argument, max_pool_dgrad(s, dy.readable(), indices.readable(), dx.tensor(), true)),
          "index", wrong);
  }
}

}  // namespace fastconv::FASTCONV_BACKEND
