// Memory for the tests of kernels: exact inputs, and outputs that are compared with all that lies around them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "arrays.hpp"

namespace fastconv::test {

template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

// Inputs have no cell beyond those that a kernel may read, so that a sanitizer sees it read more.
template <class T>
std::vector<T> integers(Integers& random, int64_t count, int least = -4, int most = 4) {
  std::vector<T> cells(static_cast<std::size_t>(count));
  for (T& cell : cells) cell = random.next<T>(least, most);
  return cells;
}

// Cells that a kernel writes some of. A test copies them before the call, writes what it expects to the copy by a plain
// loop, and compares the two: guards, gaps and results alike.
template <class T>
class Cells {
 public:
  explicit Cells(int64_t size) : cells_(static_cast<std::size_t>(size + 2 * kGuard), T(77)) {}
  Cells(Integers& random, int64_t size) : cells_(integers<T>(random, size + 2 * kGuard)) {}
  T* data() { return cells_.data() + kGuard; }
  const T* data() const { return cells_.data() + kGuard; }

  // The largest difference, in units of `unit` per cell of `other`; infinite where one alone is not a number.
  double distance(const Cells& other) const {
    double largest = 0;
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      const auto a = static_cast<double>(cells_[i]), b = static_cast<double>(other.cells_[i]);
      if (a == b || (std::isnan(a) && std::isnan(b))) continue;
      largest = std::isnan(a - b) ? std::numeric_limits<double>::infinity() : std::max(largest, std::abs(a - b));
    }
    return largest;
  }
  bool operator==(const Cells& other) const { return distance(other) == 0; }

 private:
  static constexpr int64_t kGuard = 64;

  std::vector<T> cells_;
};

// Calls body<T>() for the types that are computed with.
template <class Body>
void for_floats(Body body) {
  body.template operator()<float>();
  body.template operator()<double>();
}

}  // namespace fastconv::test
