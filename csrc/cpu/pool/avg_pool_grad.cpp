// The gradient of average and sum pooling; avg_pool.cpp has the idea.
#include "averages.hpp"
#include "cpu/runtime/scratch.hpp"

namespace fastconv::cpu {
namespace {

using namespace average;

// Backward over planes, a block of some rows of one (n, c, d) at a time. The gradients of the windows over them are
// spread along w, one line for each p (and summed over z); each row of dx sums the lines of the windows that hold it.
template <class T>
class PlaneGradients {
 public:
  PlaneGradients(const PoolShape& shape, Divisor divisor, const Tensor<const T>& dy, const Tensor<T>& dx)
      : shape_(shape), dy_(dy), dx_(dx), divisors_(shape, divisor), rows_(0, 1), columns_(0, 1), tasks_(0, 1) {
    join_spanned(shape_, dx_.stride, kTaskCells);
    const auto& [depth, height, width] = shape_.axis;
    if (!width.even && width.stride <= 2) stride_ = width.stride;
    rows_ = Blocks(height.in, ceil_div(kTaskCells, std::max(width.in, kMaxLanes)));
    columns_ = Blocks(width.in, kLineCells);
    const int64_t tasks = shape_.n * shape_.c * depth.in * rows_.count * columns_.count;
    tasks_ = Blocks(tasks, kTaskCells * tasks / std::max<int64_t>(1, shape.n * shape.c * shape.cells()));
    if (height.in <= kLineCells) {
      for (int64_t h = 0; h < height.in; ++h) over_row_.push_back(height.windows_over(h));
    }
    int64_t lines = 0, gradients = 0;
    for (int64_t block = 0; block < rows_.count; ++block)
      lines = std::max(lines, windows_over_rows(rows_[block]).size());
    for (int64_t block = 0; block < columns_.count; ++block)
      gradients = std::max(gradients, cut_columns(columns_[block]).windows.size());
    whole_ = cut_columns({0, width.in});
    line_size_ = 2 * whole_vectors(columns_.size / 2 + 1) + kMaxLanes;
    gradients_size_ = std::max(whole_vectors(gradients), line_size_) + (stride_ != 0 ? 2 * width.filter : 0);
    gradients_ = scratch_.each<T>(gradients_size_);
    lines_ = scratch_.each<T>(lines, line_size_);
    even_ = scratch_.each<T>(gradients_size_);
    odd_ = scratch_.each<T>(line_size_);
    quotients_ = scratch_.each<T>(divisors_.buffer_size(gradients));
    scratch_.fit(kUnlimited, pool_threads(shape), "average pooling");
  }

  void run() const {
    const Workspace memory(scratch_.bytes());
    const Arrays at(scratch_, memory.at<std::byte>(0));
    parallel_for(tasks_.count, scratch_.threads(), [&](int64_t block, int slot) noexcept {
      for (int64_t task = tasks_[block].begin; task < tasks_[block].end; ++task) make_rows(task, at, slot);
    });
  }

 private:
  // A block of the columns of dx: gradients[i] is that of window first + i, and `windows` are the ones over the block.
  struct Columns {
    Range cells, windows;
    int64_t first = 0;
    int64_t pairs = 0, shift = 0;  // of windows with a stride of 2: see spread()
  };
  Columns cut_columns(Range cells) const {
    const Axis& width = shape_.axis[2];
    Columns cut{cells, {width.windows_over(cells.begin).begin, width.windows_over(cells.end - 1).end}, 0, 0, 0};
    cut.first = cut.windows.begin;
    if (stride_ == 1) cut.first = cells.begin + width.pad_begin - (width.filter - 1);
    if (stride_ == 2) {
      const int64_t begin = (cells.begin + width.pad_begin) / 2;
      cut.pairs = ceil_div(cells.end + width.pad_begin, 2) - begin;
      cut.shift = cells.begin + width.pad_begin - 2 * begin;
      cut.first = begin - (ceil_div(width.filter, 2) - 1);
    }
    return cut;
  }
  Range windows_over_row(int64_t h) const {
    return over_row_.empty() ? shape_.axis[1].windows_over(h) : over_row_[static_cast<std::size_t>(h)];
  }
  Range windows_over_rows(Range rows) const {
    return {windows_over_row(rows.begin).begin, windows_over_row(rows.end - 1).end};
  }

  void make_rows(int64_t task, const Arrays& at, int slot) const {
    T *gradients = at(gradients_, slot), *lines = at(lines_, slot), *even = at(even_, slot), *odd = at(odd_, slot);
    const Columns columns = columns_.count == 1 ? whole_ : cut_columns(columns_[task % columns_.count]);
    task /= columns_.count;
    const Range rows = rows_[task % rows_.count], ps = windows_over_rows(rows);
    const int64_t plane = task / rows_.count / shape_.axis[0].in, d = task / rows_.count % shape_.axis[0].in;
    const int64_t n = plane / shape_.c, c = plane % shape_.c, width = columns.cells.size();
    const T* divisors = divisors_.columns(columns.windows, at(quotients_, slot));
    std::fill_n(gradients, gradients_size_, T(0));
    const Range zs = shape_.axis[0].windows_over(d);
    for (int64_t p = ps.begin; p < ps.end; ++p) {
      divide_row(n, c, zs, p, columns, divisors, gradients, even);
      spread(gradients, columns, lines + (p - ps.begin) * line_size_, even, odd);
    }
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      T* row = dx_.at(n, c) + d * dx_.stride[2] + h * dx_.stride[3] + columns.cells.begin * dx_.stride[4];
      const bool contiguous = dx_.stride[4] == 1;
      RowSum<T> sum(contiguous ? row : odd, width, 1);
      const Range over = windows_over_row(h);
      for (int64_t p = over.begin; p < over.end; ++p) sum.add(lines + (p - ps.begin) * line_size_ + columns.shift, 1);
      sum.finish(1);
      for (int64_t w = 0; w < width && !contiguous; ++w) row[w * dx_.stride[4]] = odd[w];
    }
  }

  // gradients[q - first] = dy[z,p,q] / divisor, summed over z, for the windows over some columns.
  void divide_row(int64_t n, int64_t c, Range zs, int64_t p, const Columns& columns, const T* divisors, T* gradients,
                  T* spare) const {
    const Range q = columns.windows;
    gradients += q.begin - columns.first;
    for (int64_t z = zs.begin; z < zs.end; ++z) {
      const T* row = dy_.at(n, c) + z * dy_.stride[2] + p * dy_.stride[3] + q.begin * dy_.stride[4];
      T* quotients = z == zs.begin ? gradients : spare;
      sum_kernels<T>().divide(quotients, 1, row, dy_.stride[4], divisors, divisors_(0, z) * divisors_(1, p), q.size());
      for (int64_t i = 0; i < q.size() && z > zs.begin; ++i) gradients[i] += quotients[i];
    }
  }

  // line[shift + w] = the sum of the gradients of the windows over w. A window begins at q * stride - pad_begin, so
  // with a stride of 2 every other cell has one window more, if the window's size is odd.
  void spread(const T* gradients, const Columns& columns, T* line, T* even, T* odd) const {
    const Axis& width = shape_.axis[2];
    const Range cells = columns.cells;
    if (stride_ == 1) return sum_kernels<T>().slide(line, cells.size(), gradients, width.filter, 1);
    if (stride_ == 2) {
      const int64_t more = ceil_div(width.filter, 2), less = width.filter / 2;
      sum_kernels<T>().slide(even, columns.pairs, gradients, more, 1);
      sum_kernels<T>().slide(odd, columns.pairs, gradients + (more - less), less, 1);
      return sum_kernels<T>().interleave(line, even, odd, columns.pairs);
    }
    std::fill_n(line, cells.size(), T(0));
    for (int64_t q = columns.windows.begin; q < columns.windows.end; ++q) {
      const Range window = width.cells(q);
      const int64_t end = std::min(window.end, cells.end);
      for (int64_t w = std::max(window.begin, cells.begin); w < end; ++w)
        line[w - cells.begin] += gradients[q - columns.first];
    }
  }

  PoolShape shape_;
  Tensor<const T> dy_;
  Tensor<T> dx_;
  Divisors<T> divisors_;
  Blocks rows_, columns_, tasks_;
  std::vector<Range> over_row_;  // the windows over each row, unless these are many
  Columns whole_;                // of all columns
  int64_t stride_ = 0;           // of windows that slide, else 0
  int64_t line_size_, gradients_size_;
  Scratch scratch_;
  ThreadArray<T> gradients_, lines_, even_, odd_, quotients_;
};

}  // namespace

template <class T>
void avg_pool_dgrad(const PoolShape& s, Tensor<const T> dy, Tensor<T> dx, Divisor divisor) {
  if (s.n * s.c * s.cells() == 0) return;
  if (!channels_last(s, dy, dx)) return PlaneGradients<T>(s, divisor, dy, dx).run();
  const Divisors<T> at(s, divisor);
  sum_pixels<T>(
      s, dy, dx, {s.axis[0].in, s.axis[1].in, s.axis[2].in},
      [&](std::size_t axis, int64_t i) { return s.axis[axis].windows_over(i); },
      [&](int64_t z, int64_t p, int64_t q) { return 1 / (at(0, z) * at(1, p) * at(2, q)); },
      [](int64_t, int64_t, int64_t) { return T(1); });
}

template void avg_pool_dgrad(const PoolShape&, Tensor<const float>, Tensor<float>, Divisor);
template void avg_pool_dgrad(const PoolShape&, Tensor<const double>, Tensor<double>, Divisor);

}  // namespace fastconv::cpu
