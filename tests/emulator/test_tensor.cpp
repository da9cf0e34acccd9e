// Products on tensor cores against loops, on memory that is addressed exactly: every way of the operands into shared
// memory, with and without parts, and convolutions that pack their filters. tests/test_tensor_cores.py has the
// geometry.
#include <string>
#include <vector>

#include "backend.hpp"
#include "check.hpp"
#include "cuda/runtime/half.hpp"

namespace fastconv::cuda {
namespace {

// Calls body in some of the emulator's modes; they are all one to the race detector.
template <class Body>
void in_modes(Body body) {
  using emulator::Order;
  const emulator::Options before = emulator::options();
  for (const emulator::Options& mode :
       {before, emulator::Options{Order::reverse, 1, true}, emulator::Options{Order::shuffled, 7, false}}) {
    emulator::options() = mode;
    const test::Scratch scratch;
    body();
#ifdef FASTCONV_EMULATOR_TSAN
    break;
#endif
  }
  emulator::options() = before;
}

template <class T>
std::vector<T> integers(int64_t size, int64_t factor) {
  std::vector<T> cells(static_cast<std::size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    cells[static_cast<std::size_t>(i)] = T(static_cast<float>(i * factor % 7 - 3));
  }
  return cells;
}

// The same bytes; NaN never comes up.
template <class T>
bool equal(const std::vector<T>& a, const std::vector<T>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (static_cast<float>(a[i]) != static_cast<float>(b[i])) return false;
  }
  return a.size() == b.size();
}

// By rows or by columns; `shift` cells into its memory, so that 16-byte words are not aligned.
template <class T>
Matrix<T> matrix_of(T* data, int64_t rows, int64_t cols, bool by_rows, int64_t shift) {
  return {data + shift, rows, cols, by_rows ? cols : 1, by_rows ? 1 : rows};
}

template <class T>
void check_product(int64_t m, int64_t n, int64_t k, int64_t shift) {
  const auto a = integers<T>(m * k + shift, 5), b = integers<T>(k * n + shift, 11), bias = integers<T>(n, 3);
  for (const bool a_by_rows : {true, false}) {
    for (const bool b_by_rows : {true, false}) {
      const Matrix<const T> left = matrix_of(a.data(), m, k, a_by_rows, shift);
      const Matrix<const T> right = matrix_of(b.data(), k, n, b_by_rows, shift);
      std::vector<T> want;
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          float sum = static_cast<float>(bias[static_cast<std::size_t>(j)]);
          for (int64_t l = 0; l < k; ++l) {
            sum += static_cast<float>(left.data[i * left.row_stride + l * left.col_stride]) *
                   static_cast<float>(right.data[l * right.row_stride + j * right.col_stride]);
          }
          want.push_back(T(sum));
        }
      }
      in_modes([&] {
        std::vector<T> c(static_cast<std::size_t>(m * n));
        matmul<T>(left, right, {bias.data(), 1}, matrix_of(c.data(), m, n, true, 0), false, Precision::tf32);
        CHECK(equal(c, want), "m", m, "n", n, "k", k, "shift", shift, "a by rows", a_by_rows, "b by rows", b_by_rows);
      });
    }
  }
}

template <class T>
void check_products() {
  check_product<T>(40, 24, 48, 0);
  check_product<T>(40, 24, 48, 1);
  check_product<T>(136, 8, 16, 0);
  check_product<T>(8, 16, 1040, 0);  // in parts
}

// One image of 5 x 6 with its channels last through 3 x 2 filters: the three passes.
template <class T>
void check_convolution() {
  ConvShape s{.n = 1, .c = 8, .k = 16, .groups = 1, .axis = {}};
  s.axis = {Axis{}, Axis{.in = 5, .filter = 3, .pad_begin = 1}, Axis{.in = 6, .filter = 2, .stride = 2, .pad_end = 1}};
  for (Axis& axis : s.axis) axis.out = output_extent(axis);
  const auto& [depth, height, width] = s.axis;
  const int64_t rows = height.out, columns = width.out;
  const auto x = integers<T>(5 * 6 * s.c, 5), w = integers<T>(s.k * s.c * 6, 11),
             dy = integers<T>(rows * columns * s.k, 4);
  std::vector<float> y(dy.size()), dx(x.size()), dw(w.size());
  for (int64_t p = 0; p < rows; ++p)
    for (int64_t q = 0; q < columns; ++q)
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t f = 0; f < 2; ++f) {
          const int64_t h = height.input(p, r), v = width.input(q, f);
          if (!height.inside(h) || !width.inside(v)) continue;
          for (int64_t k = 0; k < s.k; ++k)
            for (int64_t c = 0; c < s.c; ++c) {
              const auto in = static_cast<std::size_t>((h * 6 + v) * s.c + c);
              const auto filter = static_cast<std::size_t>(((k * s.c + c) * 3 + r) * 2 + f);
              const auto out = static_cast<std::size_t>((p * columns + q) * s.k + k);
              y[out] += static_cast<float>(x[in]) * static_cast<float>(w[filter]);
              dx[in] += static_cast<float>(w[filter]) * static_cast<float>(dy[out]);
              dw[filter] += static_cast<float>(x[in]) * static_cast<float>(dy[out]);
            }
        }
  const std::array<int64_t, 5> xs{5 * 6 * s.c, 1, 0, 6 * s.c, s.c}, ys{rows * columns * s.k, 1, 0, columns * s.k, s.k},
      ws{s.c * 6, 6, 0, 2, 1};
  ConvOptions options{.precision = Precision::tf32};
  const auto rounded = [](const std::vector<float>& exact) {
    std::vector<T> cells;
    for (const float value : exact) cells.push_back(T(value));
    return cells;
  };
  in_modes([&] {
    std::vector<T> result;
    for (const Algorithm algorithm : {Algorithm::wgmma, Algorithm::automatic}) {
      if (algorithm == Algorithm::wgmma && sizeof(T) != 2) continue;
      options.algorithm = algorithm;
      result.assign(y.size(), T(-1.0f));
      conv_fprop<T>(s, {x.data(), xs}, {w.data(), ws}, {}, {result.data(), ys}, false, options);
      CHECK(equal(result, rounded(y)), "algorithm", to_string(algorithm));
      result.assign(x.size(), T(-1.0f));
      conv_dgrad<T>(s, {dy.data(), ys}, {w.data(), ws}, {result.data(), xs}, options);
      CHECK(equal(result, rounded(dx)), "algorithm", to_string(algorithm));
    }
    result.assign(w.size(), T(-1.0f));
    conv_wgrad<T>(s, {dy.data(), ys}, {x.data(), xs}, {result.data(), ws}, options);
    CHECK(equal(result, rounded(dw)));
  });
}

// What a device of this compute capability says of a small convolution of float16.
std::string said_by(int capability, Algorithm algorithm) {
  const emulator::Options before = emulator::options();
  emulator::options().capability = capability;
  const test::Scratch scratch;
  ConvShape s{.n = 1, .c = 8, .k = 1, .groups = 1, .axis = {}};
  const auto x = integers<Float16>(8, 1);
  std::vector<Float16> y(1);
  std::string said;
  try {
    const std::array<int64_t, 5> strides{8, 1, 8, 8, 8};
    conv_fprop<Float16>(s, {x.data(), strides}, {x.data(), strides}, {}, {y.data(), strides}, false,
                        {.algorithm = algorithm});
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  emulator::options() = before;
  return said;
}

}  // namespace

TEST(devices_that_lack_the_instructions) {
  CHECK(said_by(7, Algorithm::implicit).find("compute capability 8.0 or newer") != std::string::npos);
  for (const int capability : {8, 10}) {
    CHECK_EQUAL(said_by(capability, Algorithm::implicit), std::string());
    CHECK(said_by(capability, Algorithm::wgmma).find("compute capability 9.0") != std::string::npos);
  }
  CHECK_EQUAL(said_by(9, Algorithm::wgmma), std::string());
}

TEST(products_of_tf32) { check_products<float>(); }
TEST(products_of_float16) { check_products<Float16>(); }
TEST(products_of_bfloat16) { check_products<BFloat16>(); }
TEST(convolutions) {
  check_convolution<float>();
  check_convolution<Float16>();
  check_convolution<BFloat16>();
}

}  // namespace fastconv::cuda
