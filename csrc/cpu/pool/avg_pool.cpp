// Average and sum pooling, x[N,C,D,H,W] to y[N,C,Z,P,Q], and the gradient.
//
// Both are sums over boxes: y sums the cells of a window, dx the windows over a cell, and along each axis either is a
// range. Channels last: a pixel's channels are lanes, and the pixels of a box are added. Planes: the sum is separable,
// so rows are added into one line, vectors along w, and windows slide over the line; backward, lines of windows spread
// along w are added into rows. Long rows go block by block, so that lines and tables stay in the caches.
#include "averages.hpp"
#include "cpu/runtime/scratch.hpp"

namespace fastconv::cpu {
namespace {

using namespace average;

// The sum of `count` neighbours of which cells(first, size) shows a part. float32 adds up in parts, which are added in
// float64: a long sum would stop growing.
template <class T, class Cells>
T sum_run(int64_t count, Cells cells) {
  if (count <= kTaskCells) return sum_kernels<T>().run(cells(0, count), count);
  double total = 0;
  for (int64_t first = 0; first < count; first += kTaskCells) {
    const int64_t size = std::min(kTaskCells, count - first);
    total += static_cast<double>(sum_kernels<T>().run(cells(first, size), size));
  }
  return static_cast<T>(total);
}

// Forward over planes: a block of the outputs of a row at a time.
template <class T>
class PlaneAverages {
 public:
  PlaneAverages(const PoolShape& shape, Divisor divisor, const Tensor<const T>& x, const Tensor<T>& y)
      : shape_(shape), x_(x), y_(y), divisors_(shape, divisor), rows_(0, 1), columns_(0, 1) {
    const int64_t rows_of_plane = shape.axis[0].out * shape.axis[1].out;
    rows_ = Blocks(shape.n * shape.c * rows_of_plane, kTaskCells / std::max<int64_t>(1, shape.cells() / rows_of_plane));
    join_spanned(shape_, x_.stride, x_.stride[4] == 1 ? shape_.cells() : kTaskCells);  // what is not copied is free
    const Axis& width = shape_.axis[2];
    slides_ = !width.even && width.out > 1 && width.stride <= 2;
    in_place_ = !slides_ && shape_.axis[0].in == 1 && shape_.axis[1].in == 1 && x_.stride[4] == 1;
    const bool fits = slides_ || in_place_ || width.in <= kLineCells;
    columns_ = Blocks(width.out, fits ? kLineCells : kLineCells / 2 / ceil_div(width.in, width.out));
    for (int64_t q = 0; q < width.out && columns_.count == 1 && !slides_; ++q) windows_.push_back(width.cells(q));
    if (slides_) {
      line_size_ = whole_vectors(columns_.size) * width.stride + width.filter;
    } else if (!in_place_) {
      line_size_ = std::min(width.in, kLineCells);
    }
    line_ = scratch_.each<T>(line_size_);
    sums_ = scratch_.each<T>(whole_vectors(columns_.size));
    quotients_ = scratch_.each<T>(divisors_.buffer_size(columns_.size));
    scratch_.fit(kUnlimited, pool_threads(shape), "average pooling");
  }

  void run() const {
    const Workspace memory(scratch_.bytes());
    const Arrays at(scratch_, memory.at<std::byte>(0));
    parallel_for(rows_.count * columns_.count, scratch_.threads(), [&](int64_t task, int slot) noexcept {
      average(rows_[task / columns_.count], columns_[task % columns_.count], at(line_, slot), at(sums_, slot),
              at(quotients_, slot));
    });
  }

 private:
  // Outputs q of some rows of all, numbered (n, c, z, p).
  void average(Range rows, Range q, T* line, T* sums, T* buffer) const {
    const T* divisors = divisors_.columns(q, buffer);
    if (slides_) std::fill_n(line, line_size_, T(0));
    const int64_t p_count = shape_.axis[1].out, z_count = shape_.axis[0].out;
    int64_t p = rows.begin % p_count, z = rows.begin / p_count % z_count, plane = rows.begin / p_count / z_count;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t n = plane / shape_.c, c = plane % shape_.c;
      add_windows(x_.at(n, c), z, p, q, line, sums);
      T* out = y_.at(n, c) + z * y_.stride[2] + p * y_.stride[3] + q.begin * y_.stride[4];
      sum_kernels<T>().divide(out, y_.stride[4], sums, 1, divisors, divisors_(0, z) * divisors_(1, p), q.size());
      if (++p < p_count) continue;
      p = 0;
      if (++z < z_count) continue;
      z = 0;
      ++plane;
    }
  }

  Range window(int64_t q) const {
    return windows_.empty() ? shape_.axis[2].cells(q) : windows_[static_cast<std::size_t>(q)];
  }

  // sums[q] of one row of outputs.
  void add_windows(const T* plane, int64_t z, int64_t p, Range q, T* line, T* sums) const {
    const auto& [depth, height, width] = shape_.axis;
    const Range ds = depth.cells(z), hs = height.cells(p);
    if (ds.size() == 0 || hs.size() == 0) {  // nothing but padding
      std::fill_n(sums, q.size(), T(0));
      return;
    }
    if (slides_) {
      const int64_t first = width.input(q.begin, 0), end = width.input(q.end - 1, width.filter);
      const int64_t begin = std::clamp<int64_t>(first, 0, width.in);
      add_rows(plane, ds, hs, {begin, std::clamp(end, begin, width.in)}, line + (begin - first));
      return sum_kernels<T>().slide(sums, q.size(), line, width.filter, width.stride);
    }
    const Range span{window(q.begin).begin, window(q.end - 1).end};
    const bool together = span.size() <= line_size_;
    if (together) add_rows(plane, ds, hs, span, line);
    for (int64_t i = q.begin; i < q.end; ++i) {
      const Range w = window(i);
      *sums++ = sum_run<T>(w.size(), [&](int64_t first, int64_t size) -> const T* {
        if (in_place_) return plane + w.begin + first;
        if (together) return line + (w.begin - span.begin) + first;
        add_rows(plane, ds, hs, {w.begin + first, w.begin + first + size}, line);
        return line;
      });
    }
  }

  // line[w] = the sum of a column of some rows.
  void add_rows(const T* plane, Range ds, Range hs, Range w, T* line) const {
    RowSum<T> sum(line, w.size(), x_.stride[4]);
    for (int64_t d = ds.begin; d < ds.end; ++d) {
      for (int64_t h = hs.begin; h < hs.end; ++h)
        sum.add(plane + d * x_.stride[2] + h * x_.stride[3] + w.begin * x_.stride[4], 1);
    }
    sum.finish(1);
  }

  PoolShape shape_;
  Tensor<const T> x_;
  Tensor<T> y_;
  Divisors<T> divisors_;
  Blocks rows_, columns_;  // of all rows, of a row's outputs
  std::vector<Range> windows_;
  bool slides_, in_place_;
  int64_t line_size_ = 0;
  Scratch scratch_;
  ThreadArray<T> line_, sums_, quotients_;
};

}  // namespace

template <class T>
void avg_pool_fprop(const PoolShape& s, Tensor<const T> x, Tensor<T> y, Divisor divisor) {
  if (s.n * s.c * s.pixels() == 0) return;
  if (!channels_last(s, x, y)) return PlaneAverages<T>(s, divisor, x, y).run();
  const Divisors<T> at(s, divisor);
  sum_pixels<T>(
      s, x, y, {s.axis[0].out, s.axis[1].out, s.axis[2].out},
      [&](std::size_t axis, int64_t o) { return s.axis[axis].cells(o); },
      [](int64_t, int64_t, int64_t) { return T(1); },
      [&](int64_t z, int64_t p, int64_t q) { return at(0, z) * at(1, p) * at(2, q); });
}

template void avg_pool_fprop(const PoolShape&, Tensor<const float>, Tensor<float>, Divisor);
template void avg_pool_fprop(const PoolShape&, Tensor<const double>, Tensor<double>, Divisor);

}  // namespace fastconv::cpu
