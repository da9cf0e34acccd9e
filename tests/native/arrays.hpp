// Arrays for tests: cells at known places in a larger buffer, so that a write anywhere else is seen.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "ops.hpp"

namespace fastconv::test {

using Shape = std::array<int64_t, 5>;  // N, C, D, H, W

// How a tensor lies in memory.
struct Memory {
  const char* name;
  std::array<std::size_t, 5> order;  // axes, outermost first
  int64_t gap;                       // cells from one to the next along the innermost axis
  bool reversed;                     // the width runs backwards
};

inline std::ostream& operator<<(std::ostream& out, const Memory& memory) { return out << memory.name; }

inline constexpr Memory kNCHW{"NCHW", {0, 1, 2, 3, 4}, 1, false};
inline constexpr Memory kNHWC{"NHWC", {0, 2, 3, 4, 1}, 1, false};
inline constexpr Memory kMemories[] = {kNCHW,
                                       kNHWC,
                                       {"every third cell", {0, 1, 2, 3, 4}, 3, false},
                                       {"width before height", {1, 0, 4, 2, 3}, 1, false},
                                       {"width backwards", {0, 1, 2, 3, 4}, 1, true}};

// A tensor with guard cells before, after and in its gaps.
template <class T>
class GuardedTensor {
 public:
  GuardedTensor(const Shape& shape, const Memory& memory, T initial = T(-77)) : shape_(shape) {
    int64_t step = memory.gap;
    for (std::size_t i = 5; i-- > 0;) {
      tensor_.stride[memory.order[i]] = step;
      step *= shape[memory.order[i]] + (memory.gap > 1 ? 1 : 0);
    }
    cells_.assign(static_cast<std::size_t>(step + 2 * kGuard), guard());
    tensor_.data = cells_.data() + kGuard;
    if (memory.reversed) {
      tensor_.data += (shape[4] - 1) * tensor_.stride[4];
      tensor_.stride[4] = -tensor_.stride[4];
    }
    fill([&] { return initial; });
  }
  GuardedTensor(GuardedTensor&&) = default;  // a copy's tensor would point into the original

  const Shape& shape() const { return shape_; }
  Tensor<T> tensor() { return tensor_; }
  Tensor<const T> readable() const { return {tensor_.data, tensor_.stride}; }
  T& operator()(int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) const {
    return tensor_.at(n, c)[d * tensor_.stride[2] + h * tensor_.stride[3] + w * tensor_.stride[4]];
  }

  // Calls visit(cell, n, c, d, h, w) in the order of the axes.
  template <class Visit>
  void for_each(Visit visit) const {
    for (int64_t n = 0; n < shape_[0]; ++n)
      for (int64_t c = 0; c < shape_[1]; ++c)
        for (int64_t d = 0; d < shape_[2]; ++d)
          for (int64_t h = 0; h < shape_[3]; ++h)
            for (int64_t w = 0; w < shape_[4]; ++w) visit((*this)(n, c, d, h, w), n, c, d, h, w);
  }
  template <class Make>
  void fill(Make make) {
    for_each([&](T& cell, auto...) { cell = make(); });
  }

  // The same cells, of another type and elsewhere in memory.
  template <class U>
  GuardedTensor<U> to(const Memory& memory) const {
    GuardedTensor<U> other(shape_, memory);
    other.for_each([&](U& cell, auto... at) { cell = static_cast<U>((*this)(at...)); });
    return other;
  }
  template <class U>
  bool same_cells(const GuardedTensor<U>& other) const {
    bool same = true;
    for_each([&](T cell, auto... at) { same = same && static_cast<U>(cell) == other(at...); });
    return same;
  }

  // max|this - other|, infinite where either is not a number.
  template <class U>
  double distance(const GuardedTensor<U>& other) const {
    double largest = 0;
    for_each([&](T cell, auto... at) {
      const double apart = std::abs(static_cast<double>(cell) - static_cast<double>(other(at...)));
      largest = std::isnan(apart) ? std::numeric_limits<double>::infinity() : std::max(largest, apart);
    });
    return largest;
  }

  // Whether all that is no cell of the tensor is as it was.
  bool guards_intact() const {
    std::vector<bool> own(cells_.size(), false);
    for_each([&](const T& cell, auto...) { own[static_cast<std::size_t>(&cell - cells_.data())] = true; });
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      if (!own[i] && cells_[i] != guard()) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr T guard() { return T(123456); }

  Shape shape_;
  std::vector<T> cells_;
  Tensor<T> tensor_;
};

// Small integers, of which every sum and product in these tests is exact in float32.
class Integers {
 public:
  explicit Integers(unsigned seed) : engine_(seed) {}
  template <class T>
  T next(int least = -4, int most = 4) {
    return static_cast<T>(std::uniform_int_distribution<int>(least, most)(engine_));
  }

 private:
  std::mt19937 engine_;
};

}  // namespace fastconv::test
