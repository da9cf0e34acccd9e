// Winograd's six transforms against their defining matrices, and these against a correlation.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/runtime/isa.hpp"
#include "kernels/cells.hpp"

namespace fastconv::cpu {
namespace {

using test::Cells;
using test::Integers;
using test::integers;

class Matrix {
 public:
  Matrix(int row_count, int column_count)
      : rows(row_count), columns(column_count), cells_(static_cast<std::size_t>(row_count * column_count)) {}
  double& operator()(int i, int j) { return cells_[static_cast<std::size_t>(i * columns + j)]; }
  double operator()(int i, int j) const { return cells_[static_cast<std::size_t>(i * columns + j)]; }
  Matrix transposed() const {
    Matrix other(columns, rows);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) other(j, i) = (*this)(i, j);
    }
    return other;
  }
  friend Matrix operator*(const Matrix& a, const Matrix& b) {
    Matrix product(a.rows, b.columns);
    for (int i = 0; i < a.rows; ++i) {
      for (int j = 0; j < b.columns; ++j) {
        for (int k = 0; k < a.columns; ++k) product(i, j) += a(i, k) * b(k, j);
      }
    }
    return product;
  }
  int rows, columns;

 private:
  std::vector<double> cells_;
};

// F(o x o, r x r) by interpolation: a product of polynomials is known by its values at s - 1 points and at
// infinity, s = o + r - 1. Column p of A^T has the powers of point p; row p of G has them over the product of the
// point's distances from the others; row p of B^T has the coefficients of the polynomial that is zero at the others.
struct Matrices {
  Matrix a_t, g, b_t;

  Matrices(int outputs, int taps) : a_t(outputs, outputs + taps - 1), g(a_t.columns, taps), b_t(g.rows, g.rows) {
    const int infinity = g.rows - 1;
    const std::vector<double> points =
        g.rows == 4 ? std::vector<double>{0, 1, -1} : std::vector<double>{0, 0.75, -0.75, 1.5, -1.5};
    for (int p = 0; p <= infinity; ++p) {
      std::vector<double> polynomial{1};
      double distances = 1;
      for (int other = 0; other < infinity; ++other) {
        if (other == p) continue;
        const double root = points[static_cast<std::size_t>(other)];
        if (p < infinity) distances *= points[static_cast<std::size_t>(p)] - root;
        polynomial.push_back(0);  // times x - root
        for (std::size_t i = polynomial.size() - 1; i > 0; --i)
          polynomial[i] = polynomial[i - 1] - root * polynomial[i];
        polynomial[0] *= -root;
      }
      for (std::size_t i = 0; i < polynomial.size(); ++i) b_t(p, static_cast<int>(i)) = polynomial[i];
      const auto power = [&](int exponent, int degree) {  // at infinity only the highest coefficient counts
        if (p == infinity) return exponent == degree ? 1.0 : 0.0;
        return std::pow(points[static_cast<std::size_t>(p)], exponent);
      };
      for (int i = 0; i < outputs; ++i) a_t(i, p) = power(i, outputs - 1);
      for (int i = 0; i < taps; ++i) g(p, i) = power(i, taps - 1) / distances;
    }
  }
};

// How vectors lie in a square of them: elements from one row, and from one column, to the next.
struct Square {
  int64_t row, column;

  int64_t at(int i, int j) const { return i * row + j * column; }
  int64_t size(int extent, int64_t lanes) const { return at(extent - 1, extent - 1) + lanes; }
};

template <class T>
Matrix read_lane(const Cells<T>& cells, int extent, Square square, int64_t lane) {
  Matrix m(extent, extent);
  for (int i = 0; i < extent; ++i) {
    for (int j = 0; j < extent; ++j) m(i, j) = static_cast<double>(cells.data()[square.at(i, j) + lane]);
  }
  return m;
}
template <class T>
void write_lane(Cells<T>& cells, const Matrix& m, Square square, int64_t lane, bool add) {
  for (int i = 0; i < m.rows; ++i) {
    for (int j = 0; j < m.columns; ++j) {
      T& cell = cells.data()[square.at(i, j) + lane];
      cell = static_cast<T>(m(i, j) + (add ? static_cast<double>(cell) : 0));
    }
  }
}

// Calls body<T>(transforms, outputs, taps) for every size and type.
template <class Body>
void for_each_size(Body body) {
  test::for_floats([&]<class T>() {
    body.template operator()<T>(winograd_kernels<T>().f4x4_3x3, 4, 3);
    body.template operator()<T>(winograd_kernels<T>().f2x2_3x3, 2, 3);
    body.template operator()<T>(winograd_kernels<T>().f2x2_5x5, 2, 5);
  });
}

// Inputs are at most 4, and no row of a matrix sums to more than about 12 in size: 4 * 12 * 12 and some roundings.
template <class T>
constexpr double kBound = 2000 * static_cast<double>(std::numeric_limits<T>::epsilon());

// A square of random vectors goes through run(in, out), and left * square * left^T is expected of each lane.
template <class T, class Run>
void check_transform(const char* name, const Matrix& left, Square from, Square to, bool add, Run run) {
  Integers random(1);
  const int64_t lanes = vector_lanes<T>();
  const Cells<T> in(random, from.size(left.columns, lanes));
  Cells<T> out(random, to.size(left.rows, lanes)), expected = out;
  run(in.data(), out.data());
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const Matrix square = read_lane(in, left.columns, from, lane);
    write_lane(expected, left * square * left.transposed(), to, lane, add);
  }
  CHECK(out.distance(expected) <= kBound<T>, name, left.rows, "by", left.columns, "off by", out.distance(expected));
}

}  // namespace

TEST(matrices_make_a_correlation) {
  for (const auto& [outputs, taps] : {std::pair{4, 3}, std::pair{2, 3}, std::pair{2, 5}}) {
    Integers random(2);
    const Matrices m(outputs, taps);
    Matrix g(taps, 1), d(outputs + taps - 1, 1);
    for (int i = 0; i < taps; ++i) g(i, 0) = random.next<double>();
    for (int i = 0; i < d.rows; ++i) d(i, 0) = random.next<double>();
    const Matrix u = m.g * g, v = m.b_t * d;
    Matrix products(d.rows, 1);
    for (int i = 0; i < d.rows; ++i) products(i, 0) = u(i, 0) * v(i, 0);
    const Matrix y = m.a_t * products;
    for (int i = 0; i < outputs; ++i) {
      double sum = 0;
      for (int j = 0; j < taps; ++j) sum += g(j, 0) * d(i + j, 0);
      CHECK(std::abs(y(i, 0) - sum) < 1e-12, "outputs", outputs, "taps", taps, "i", i);
    }
  }
}

TEST(transforms_are_their_matrices) {
  for_each_size([]<class T>(const WinogradTransforms<T>& transforms, int outputs, int taps) {
    const Matrices m(outputs, taps);
    const int64_t lanes = vector_lanes<T>(), points = outputs + taps - 1;
    // Cells of an image lie far apart, and the elements of a transformed tile `stride`, with a gap.
    const int64_t stride = lanes + 3;
    const Square image{20 * lanes, lanes + 1}, elements{points * stride, stride}, filter{taps * stride, stride};
    check_transform<T>("input", m.b_t, image, elements, false,
                       [&](const T* d, T* v) { transforms.input(v, stride, d, image.row, image.column); });
    check_transform<T>("input_gradient", m.b_t.transposed(), elements, image, true,
                       [&](const T* v, T* d) { transforms.input_gradient(d, image.row, image.column, v, stride); });
    check_transform<T>("filter", m.g, filter, elements, false,
                       [&](const T* g, T* u) { transforms.filter(u, stride, g, stride); });
    check_transform<T>("filter_gradient", m.g.transposed(), elements, {taps * lanes, lanes}, false,
                       [&](const T* u, T* g) { transforms.filter_gradient(g, u, stride); });
    check_transform<T>("gradient", m.a_t.transposed(), image, elements, false,
                       [&](const T* dy, T* e) { transforms.gradient(e, stride, dy, image.row, image.column); });
    const std::vector<T> no_bias(static_cast<std::size_t>(lanes), T(0));
    check_transform<T>("output", m.a_t, elements, image, false, [&](const T* sums, T* y) {
      transforms.output(y, image.row, image.column, sums, stride, no_bias.data(), false);
    });
  });
}

TEST(outputs_have_bias_and_relu) {
  for_each_size([]<class T>(const WinogradTransforms<T>& transforms, int outputs, int taps) {
    Integers random(3);
    const Matrices m(outputs, taps);
    const int64_t lanes = vector_lanes<T>();
    const int points = outputs + taps - 1;
    const Square elements{points * lanes, lanes}, image{outputs * lanes, lanes};
    const Cells<T> sums(random, elements.size(points, lanes));
    const auto bias = integers<T>(random, lanes);
    Cells<T> y(image.size(outputs, lanes)), expected = y;
    transforms.output(y.data(), image.row, image.column, sums.data(), lanes, bias.data(), true);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      Matrix values = m.a_t * read_lane(sums, points, elements, lane) * m.a_t.transposed();
      for (int i = 0; i < outputs; ++i) {
        for (int j = 0; j < outputs; ++j)
          values(i, j) = std::max(0.0, values(i, j) + static_cast<double>(bias[static_cast<std::size_t>(lane)]));
      }
      write_lane(expected, values, image, lane, false);
    }
    CHECK(y.distance(expected) <= kBound<T>, "outputs", outputs, "taps", taps, "off by", y.distance(expected));
  });
}

}  // namespace fastconv::cpu
