// Average and sum pooling, x[N,C,D,H,W] to y[N,C,Z,P,Q], and the gradient.
//
// Both are sums over boxes: y sums the cells of a window, dx the windows over a cell, and along each axis either is a
// range. Channels last: a pixel's channels are lanes, and the pixels of a box are added. Planes: the sum is separable,
// so rows are added into one line, vectors along w, and windows slide over the line; backward, lines of windows spread
// along w are added into rows.
#include <algorithm>
#include <array>
#include <vector>

#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "max_pool.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kTaskCells = 1 << 14;    // fewer would be over before another thread has begun
constexpr int64_t kChannelBlock = 1 << 8;  // so that the few pixels of a global average can be shared out

// out[count] = the sum of weighted rows, whose elements are `step` apart.
template <class T>
class RowSum {
 public:
  RowSum(T* out, int64_t count, int64_t step) : out_(out), count_(count), step_(step) {}
  void add(const T* row, T weight) {
    if (size_ == kRows) flush(1);
    rows_[size_] = row;
    weights_[size_++] = weight;
  }
  void finish(T divisor) { flush(divisor); }

 private:
  static constexpr int kRows = 64;

  void flush(T divisor) {
    sum_kernels<T>().rows(out_, count_, begun_ ? out_ : nullptr, rows_, weights_, size_, step_, divisor);
    begun_ = true;
    size_ = 0;
  }

  T* out_;
  int64_t count_, step_;
  bool begun_ = false;
  int size_ = 0;
  const T* rows_[kRows];
  T weights_[kRows];
};

int64_t whole_vectors(int64_t count) { return ceil_div(count, kMaxLanes) * kMaxLanes; }

// What the sums along each axis are divided by, in whole vectors; the divisor of a window is the product.
template <class T>
std::array<std::vector<T>, 3> divisors(const PoolShape& s, Divisor divisor) {
  std::array<std::vector<T>, 3> factors;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    for (int64_t o = 0; o < s.axis[axis].out; ++o) {
      const int64_t counted = std::max<int64_t>(1, s.axis[axis].window_size(o, divisor.count_padding));
      const int64_t fixed = axis == 2 ? divisor.fixed : 1;
      factors[axis].push_back(static_cast<T>(divisor.fixed != 0 ? fixed : counted));
    }
    factors[axis].resize(static_cast<std::size_t>(whole_vectors(s.axis[axis].out)), T(1));
  }
  return factors;
}

// Axes that one window spans, and that lie in memory as one, are walked as one, of at most `limit` cells.
void join_spanned(PoolShape& s, const std::array<int64_t, 5>& stride, int64_t limit) {
  const auto spanned = [](const Axis& a) { return a.out == 1 && a.cells(0).size() == a.in; };
  Axis& width = s.axis[2];
  for (const std::size_t axis : {1, 0}) {
    Axis& outer = s.axis[axis];
    const bool joined = outer.in == 1 || stride[axis + 2] == width.in * stride[4];
    if (!spanned(width) || !spanned(outer) || !joined || outer.in * width.in > limit) return;
    width = {.in = outer.in * width.in, .even = true};
    outer = {};
  }
}

// The sum of neighbours in memory. float32 adds up in parts, which are added in float64: a long sum would stop growing.
template <class T>
T sum_run(const T* cells, int64_t count) {
  if (count <= kTaskCells) return sum_kernels<T>().run(cells, count);
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kTaskCells)
    total += static_cast<double>(sum_kernels<T>().run(cells + begin, std::min(kTaskCells, count - begin)));
  return static_cast<T>(total);
}

// Forward over planes: one output row at a time.
template <class T>
class PlaneAverages {
 public:
  PlaneAverages(const PoolShape& shape, Divisor divisor, const Tensor<const T>& x, const Tensor<T>& y)
      : shape_(shape), x_(x), y_(y), divisors_(divisors<T>(shape, divisor)) {
    join_spanned(shape_, x_.stride, x_.stride[4] == 1 ? shape_.cells() : kTaskCells);  // what is not copied is free
    const Axis& width = shape_.axis[2];
    slides_ = !width.even && width.out > 1 && width.stride <= 2;
    in_place_ = !slides_ && shape_.axis[0].in == 1 && shape_.axis[1].in == 1 && x_.stride[4] == 1;
    for (int64_t q = 0; q < width.out && !slides_; ++q) windows_.push_back(width.cells(q));
    if (slides_) {
      lead_ = width.pad_begin;
      line_size_ = std::max(lead_ + width.in, whole_vectors(width.out) * width.stride + width.filter);
    } else if (!in_place_) {
      line_size_ = width.in;
    }
  }

  std::size_t scratch_bytes() const {
    return line_bytes() + array_bytes(whole_vectors(shape_.axis[2].out), 1, sizeof(T));
  }

  // Rows [rows) of all, numbered (n, c, z, p).
  void run(Range rows, std::byte* scratch) const {
    T *line = reinterpret_cast<T*>(scratch), *sums = reinterpret_cast<T*>(scratch + line_bytes());
    std::fill_n(line, line_size_, T(0));
    const int64_t p_count = shape_.axis[1].out, z_count = shape_.axis[0].out;
    int64_t p = rows.begin % p_count, z = rows.begin / p_count % z_count, plane = rows.begin / p_count / z_count;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t n = plane / shape_.c, c = plane % shape_.c;
      add_windows(x_.at(n, c), z, p, line, sums);
      sum_kernels<T>().divide(y_.at(n, c) + z * y_.stride[2] + p * y_.stride[3], y_.stride[4], sums, 1,
                              divisors_[2].data(), divisors_[0][index(z)] * divisors_[1][index(p)], shape_.axis[2].out);
      if (++p < p_count) continue;
      p = 0;
      if (++z < z_count) continue;
      z = 0;
      ++plane;
    }
  }

 private:
  static std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }
  std::size_t line_bytes() const { return array_bytes(line_size_, 1, sizeof(T)); }

  void add_windows(const T* plane, int64_t z, int64_t p, T* line, T* sums) const {
    const auto& [depth, height, width] = shape_.axis;
    const Range ds = depth.cells(z), hs = height.cells(p);
    if (ds.size() == 0 || hs.size() == 0) {  // nothing but padding
      std::fill_n(sums, width.out, T(0));
      return;
    }
    const T* cells = in_place_ ? plane : line + lead_;
    if (!in_place_) {
      RowSum<T> sum(line + lead_, width.in, x_.stride[4]);
      for (int64_t d = ds.begin; d < ds.end; ++d) {
        for (int64_t h = hs.begin; h < hs.end; ++h) sum.add(plane + d * x_.stride[2] + h * x_.stride[3], 1);
      }
      sum.finish(1);
    }
    if (slides_) return sum_kernels<T>().slide(sums, width.out, line, width.filter, width.stride);
    for (const Range& w : windows_) *sums++ = sum_run(cells + w.begin, w.size());
  }

  PoolShape shape_;
  Tensor<const T> x_;
  Tensor<T> y_;
  std::array<std::vector<T>, 3> divisors_;
  std::vector<Range> windows_;
  bool slides_, in_place_;
  int64_t lead_ = 0, line_size_ = 0;
};

// Sums boxes of pixels with channels last: to[n, o, :] = the sum of the pixels in boxes(axis, o) along each axis, each
// times weight(pixel), divided by divisor(o).
template <class T, class Boxes, class Weight, class Quotient>
void sum_pixels(const PoolShape& s, const Tensor<const T>& from, const Tensor<T>& to, const Extents& extents,
                Boxes boxes, Weight weight, Quotient divisor) {
  const Blocks blocks(s.c, kChannelBlock);
  parallel_for(s.n * extents[0] * extents[1] * blocks.count, pool_threads(s), [&](int64_t task, int) {
    const Range channels = blocks[task % blocks.count];
    const int64_t row = task / blocks.count, j = row % extents[1], i = row / extents[1] % extents[0],
                  n = row / extents[1] / extents[0];
    const T* image = from.at(n, channels.begin);
    T* out = to.at(n, channels.begin) + i * to.stride[2] + j * to.stride[3];
    const Range is = boxes(0, i), js = boxes(1, j);
    for (int64_t k = 0; k < extents[2]; ++k, out += to.stride[4]) {
      const Range ks = boxes(2, k);
      RowSum<T> sum(out, channels.size(), 1);
      for (int64_t a = is.begin; a < is.end; ++a) {
        for (int64_t b = js.begin; b < js.end; ++b) {
          const T* pixel = image + a * from.stride[2] + b * from.stride[3] + ks.begin * from.stride[4];
          for (int64_t c = ks.begin; c < ks.end; ++c, pixel += from.stride[4]) sum.add(pixel, weight(a, b, c));
        }
      }
      sum.finish(divisor(i, j, k));
    }
  });
}

// Backward over planes, some rows of one (n, c, d) at a time. The gradients of the windows over them are spread along
// w, one line for each p (and summed over z); each row of dx sums the lines of the windows that hold it.
template <class T>
class PlaneGradients {
 public:
  PlaneGradients(const PoolShape& shape, Divisor divisor, const Tensor<const T>& dy, const Tensor<T>& dx)
      : shape_(shape), dy_(dy), dx_(dx), divisors_(divisors<T>(shape, divisor)), blocks_(0, 1) {
    join_spanned(shape_, dx_.stride, kTaskCells);
    const auto& [depth, height, width] = shape_.axis;
    blocks_ = Blocks(height.in, ceil_div(kTaskCells, width.in));
    for (int64_t h = 0; h < height.in; ++h) windows_.push_back(height.windows_over(h));
    for (int64_t block = 0; block < blocks_.count; ++block)
      lines_ = std::max(lines_, windows_over_rows(blocks_[block]).size());
    if (!width.even && width.stride <= 2) {
      stride_ = width.stride;
      lead_ = width.filter - 1;
      shift_ = stride_ == 2 ? width.pad_begin : 0;
    }
    const int64_t reach = whole_vectors(width.in + width.pad_begin);
    line_size_ = std::max(reach, whole_vectors(width.out)) + kMaxLanes;
    gradients_size_ = lead_ + line_size_ + width.filter * (stride_ != 0 ? 1 : 0);
  }

  int64_t tasks() const { return shape_.n * shape_.c * shape_.axis[0].in * blocks_.count; }
  std::size_t scratch_bytes() const { return gradients_bytes() + array_bytes(lines_ + 2, line_size_, sizeof(T)); }

  void run(int64_t task, std::byte* scratch) const {
    T *gradients = reinterpret_cast<T*>(scratch), *lines = reinterpret_cast<T*>(scratch + gradients_bytes());
    T *spare = lines + lines_ * line_size_, *other = spare + line_size_;
    const Range rows = blocks_[task % blocks_.count], ps = windows_over_rows(rows);
    const int64_t plane = task / blocks_.count / shape_.axis[0].in, d = task / blocks_.count % shape_.axis[0].in;
    const int64_t n = plane / shape_.c, c = plane % shape_.c, width = shape_.axis[2].in;
    std::fill_n(gradients, gradients_size_, T(0));
    for (int64_t p = ps.begin; p < ps.end; ++p) {
      divide_row(n, c, shape_.axis[0].windows_over(d), p, gradients + lead_, spare);
      spread(gradients, lines + (p - ps.begin) * line_size_, spare, other);
    }
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      T* row = dx_.at(n, c) + d * dx_.stride[2] + h * dx_.stride[3];
      const bool contiguous = dx_.stride[4] == 1;
      RowSum<T> sum(contiguous ? row : spare, width, 1);
      const Range over = windows_[static_cast<std::size_t>(h)];
      for (int64_t p = over.begin; p < over.end; ++p) sum.add(lines + (p - ps.begin) * line_size_ + shift_, 1);
      sum.finish(1);
      for (int64_t w = 0; w < width && !contiguous; ++w) row[w * dx_.stride[4]] = spare[w];
    }
  }

 private:
  std::size_t gradients_bytes() const { return array_bytes(gradients_size_, 1, sizeof(T)); }
  Range windows_over_rows(Range rows) const {
    return {windows_[static_cast<std::size_t>(rows.begin)].begin, windows_[static_cast<std::size_t>(rows.end - 1)].end};
  }

  // gradients[q] = dy[z,p,q] / divisor, summed over z.
  void divide_row(int64_t n, int64_t c, Range zs, int64_t p, T* gradients, T* spare) const {
    const int64_t count = shape_.axis[2].out;
    for (int64_t z = zs.begin; z < zs.end; ++z) {
      const T* row = dy_.at(n, c) + z * dy_.stride[2] + p * dy_.stride[3];
      const T factor = divisors_[0][static_cast<std::size_t>(z)] * divisors_[1][static_cast<std::size_t>(p)];
      T* quotients = z == zs.begin ? gradients : spare;
      sum_kernels<T>().divide(quotients, 1, row, dy_.stride[4], divisors_[2].data(), factor, count);
      for (int64_t q = 0; q < count && z > zs.begin; ++q) gradients[q] += quotients[q];
    }
  }

  // line[shift + w] = the sum of the gradients of the windows over w. A window begins at q * stride - pad_begin, so
  // with a stride of 2 every other cell has one window more, if the window's size is odd.
  void spread(const T* gradients, T* line, T* even, T* odd) const {
    const Axis& width = shape_.axis[2];
    if (stride_ == 1) return sum_kernels<T>().slide(line, width.in, gradients + width.pad_begin, width.filter, 1);
    if (stride_ == 2) {
      const int64_t pairs = ceil_div(width.in + width.pad_begin, 2), more = ceil_div(width.filter, 2),
                    less = width.filter / 2;
      sum_kernels<T>().slide(even, pairs, gradients + lead_ - (more - 1), more, 1);
      sum_kernels<T>().slide(odd, pairs, gradients + lead_ - (less - 1), less, 1);
      return sum_kernels<T>().interleave(line, even, odd, pairs);
    }
    std::fill_n(line, width.in, T(0));
    for (int64_t q = 0; q < width.out; ++q) {
      const Range cells = width.cells(q);
      for (int64_t w = cells.begin; w < cells.end; ++w) line[w] += gradients[q];
    }
  }

  PoolShape shape_;
  Tensor<const T> dy_;
  Tensor<T> dx_;
  std::array<std::vector<T>, 3> divisors_;
  std::vector<Range> windows_;  // over each row
  Blocks blocks_;               // of rows
  int64_t stride_ = 0;          // of windows that slide, else 0
  int64_t lead_ = 0, shift_ = 0, gradients_size_, lines_ = 0, line_size_;
};

template <class T>
bool channels_last(const PoolShape& s, const Tensor<const T>& from, const Tensor<T>& to) {
  return s.c > 1 && from.stride[1] == 1 && to.stride[1] == 1;
}

}  // namespace

template <class T>
void avg_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Divisor divisor) {
  if (channels_last(s, x, y)) {
    const auto d = divisors<T>(s, divisor);
    const auto at = [&](std::size_t axis, int64_t o) { return d[axis][static_cast<std::size_t>(o)]; };
    return sum_pixels<T>(
        s, x, y, {s.axis[0].out, s.axis[1].out, s.axis[2].out},
        [&](std::size_t axis, int64_t o) { return s.axis[axis].cells(o); },
        [](int64_t, int64_t, int64_t) { return T(1); },
        [&](int64_t z, int64_t p, int64_t q) { return at(0, z) * at(1, p) * at(2, q); });
  }
  const PlaneAverages<T> planes(s, divisor, x, y);
  const int64_t rows_of_plane = s.axis[0].out * s.axis[1].out;
  const Blocks blocks(s.n * s.c * rows_of_plane, kTaskCells / std::max<int64_t>(1, s.cells() / rows_of_plane));
  const int threads = pool_threads(s);
  const std::size_t own = planes.scratch_bytes();
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  parallel_for(blocks.count, threads, [&](int64_t task, int slot) {
    planes.run(blocks[task], memory.at<std::byte>(static_cast<std::size_t>(slot) * own));
  });
}

template <class T>
void avg_pool_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<T> dx, Divisor divisor) {
  if (channels_last(s, dy, dx)) {
    const auto d = divisors<T>(s, divisor);
    const auto at = [&](std::size_t axis, int64_t o) { return d[axis][static_cast<std::size_t>(o)]; };
    return sum_pixels<T>(
        s, dy, dx, {s.axis[0].in, s.axis[1].in, s.axis[2].in},
        [&](std::size_t axis, int64_t i) { return s.axis[axis].windows_over(i); },
        [&](int64_t z, int64_t p, int64_t q) { return 1 / (at(0, z) * at(1, p) * at(2, q)); },
        [](int64_t, int64_t, int64_t) { return T(1); });
  }
  const PlaneGradients<T> planes(s, divisor, dy, dx);
  const Blocks blocks(planes.tasks(), kTaskCells * planes.tasks() / std::max<int64_t>(1, s.n * s.c * s.cells()));
  const int threads = pool_threads(s);
  const std::size_t own = planes.scratch_bytes();
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  parallel_for(blocks.count, threads, [&](int64_t block, int slot) {
    for (int64_t task = blocks[block].begin; task < blocks[block].end; ++task)
      planes.run(task, memory.at<std::byte>(static_cast<std::size_t>(slot) * own));
  });
}

template void avg_pool_fprop(const PoolShape&, Tensor<const float>, Tensor<float>, Divisor);
template void avg_pool_fprop(const PoolShape&, Tensor<const double>, Tensor<double>, Divisor);
template void avg_pool_dgrad(const PoolShape&, Tensor<const float>, Tensor<float>, Divisor);
template void avg_pool_dgrad(const PoolShape&, Tensor<const double>, Tensor<double>, Divisor);

}  // namespace fastconv::cpu
