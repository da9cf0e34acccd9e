#include "gemm.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"
#include "cut.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kLeftRows = 56;     // of left panels that stay in that cache while the right ones pass
constexpr int64_t kPackedPanels = 6;  // of a shared operand, side by side where k is far apart

// The parts of the workspace, in bytes from the start of the shared part or of a thread's own.
struct Layout {
  std::size_t left = 0, right = 0;  // packed operands, in one part or the other
  std::size_t row_bias = 0, col_bias = 0, shared = 0;
  std::size_t row_offsets = 0, col_offsets = 0, partial = 0, scratch = 0, thread = 0;
};

template <class T>
Layout make_layout(const Product<T>& p, const ProductCut& cut) {
  const int64_t rows = cut.left.padded(), columns = cut.right.padded();
  Layout at;
  const auto take = [](std::size_t& part, std::size_t bytes) { return std::exchange(part, part + bytes); };
  at.left = cut.left_in_place ? 0
            : p.share_left    ? take(at.shared, array_bytes(rows, p.k, sizeof(T)))
                              : take(at.thread, array_bytes(cut.task_left * cut.mr, cut.k_block, sizeof(T)));
  at.right = p.share_right ? take(at.shared, array_bytes(columns, p.k, sizeof(T)))
                           : take(at.thread, array_bytes(cut.task_right * cut.nr, cut.k_block, sizeof(T)));
  at.row_bias = take(at.shared, p.row_bias.data == nullptr ? 0 : array_bytes(rows, 1, sizeof(T)));
  at.col_bias = take(at.shared, p.col_bias.data == nullptr ? 0 : array_bytes(columns, 1, sizeof(T)));
  at.row_offsets = take(at.thread, array_bytes(cut.task_left, cut.mr, sizeof(int64_t)));
  at.col_offsets = take(at.thread, array_bytes(cut.task_right, cut.nr, sizeof(int64_t)));
  // The sums so far: a task's own, or, where k is cut into parts, one for each part.
  const std::size_t tile = static_cast<std::size_t>(cut.mr * cut.nr) * sizeof(T);
  if (cut.parts > 1) {
    at.partial = take(at.shared, array_bytes(cut.parts * cut.left.count(), cut.right.count(), tile));
  } else if (cut.k_blocks > 1) {
    at.partial = take(at.thread, array_bytes(cut.task_left, cut.task_right, tile));
  }
  at.scratch = take(at.thread, std::max(p.left->scratch_bytes(cut.mr), p.right->scratch_bytes(cut.nr)));
  return at;
}

// The step between consecutive offsets, or none if it changes.
std::optional<int64_t> uniform_step(const int64_t* offsets, int64_t count) {
  const int64_t step = count > 1 ? offsets[1] - offsets[0] : 0;
  for (int64_t i = 2; i < count; ++i) {
    if (offsets[i] - offsets[i - 1] != step) return std::nullopt;
  }
  return step;
}

// Some panels side by side, one block of k.
template <class T>
void pack_panels(const Operand<T>& operand, const Panels& panels, Range some, Range k, T* out, std::byte* scratch) {
  for (int64_t i = some.begin, end = i; i < some.end; i = end) {
    while (end < some.end && panels.width(end) == panels.width(i)) ++end;
    operand.pack(out + (panels.first(i) - panels.first(some.begin)) * k.size(), static_cast<int>(panels.width(i)),
                 panels.lanes({i, end}), k, scratch);
  }
}

// Some panels of the result, and what it takes to make them.
template <class T>
class Task {
 public:
  Task(const Product<T>& product, const ProductCut& cut, const Layout& layout, Range left, Range right, int64_t part,
       std::byte* shared, std::byte* own)
      : product_(product),
        cut_(cut),
        left_(left),
        right_(right),
        blocks_(Blocks(cut.k_blocks, ceil_div(cut.k_blocks, cut.parts))[part]) {
    packed_left_ = reinterpret_cast<T*>((product.share_left ? shared : own) + layout.left);
    packed_right_ = reinterpret_cast<T*>((product.share_right ? shared : own) + layout.right);
    if (cut.left_in_place) left_data_ = product.left->in_place({0, product.m});
    by_rows_ = cut.left_in_place && left_data_.k_stride == 1;
    left_stride_ = by_rows_ ? left_data_.lane_stride : cut.left_in_place ? left_data_.k_stride : cut.mr;
    row_bias_ = product.row_bias.data == nullptr ? nullptr : reinterpret_cast<const T*>(shared + layout.row_bias);
    col_bias_ = product.col_bias.data == nullptr ? nullptr : reinterpret_cast<const T*>(shared + layout.col_bias);
    row_offsets_ = reinterpret_cast<int64_t*>(own + layout.row_offsets);
    col_offsets_ = reinterpret_cast<int64_t*>(own + layout.col_offsets);
    if (cut.parts > 1) {
      const int64_t tile = (part * cut.left.count() + left.begin) * cut.right.count() + right.begin;
      partial_ = reinterpret_cast<T*>(shared + layout.partial) + tile * cut.mr * cut.nr;
      partial_row_ = cut.right.count();
    } else {
      partial_ = reinterpret_cast<T*>(own + layout.partial);
      partial_row_ = right.size();
    }
    scratch_ = own + layout.scratch;
    product.rows.offsets(cut.left.lanes(left), row_offsets_);
    product.cols.offsets(cut.right.lanes(right), col_offsets_);
    row_step_ = uniform_step(row_offsets_, cut.left.lanes(left).size());
  }

  void run() {
    for (int64_t block = blocks_.begin; block < blocks_.end; ++block) {
      const Range k{block * cut_.k_block, std::min(product_.k, (block + 1) * cut_.k_block)};
      if (!product_.share_left && !cut_.left_in_place)
        pack_panels(*product_.left, cut_.left, left_, k, packed_left_, scratch_);
      if (!product_.share_right) pack_right(k);
      const int64_t left_block = kLeftRows / cut_.mr;
      for (int64_t first = left_.begin; first < left_.end; first += left_block) {
        const Range left{first, std::min(left_.end, first + left_block)};
        fetch_ahead(left, k);
        for (int64_t j = right_.begin; j < right_.end; ++j) column(j, left, k, block);
      }
    }
  }

  void add_parts() {
    for (int64_t i = left_.begin; i < left_.end; ++i) {
      for (int64_t j = right_.begin; j < right_.end; ++j) add_tile_parts(i, j);
    }
  }

 private:
  // A whole right panel where it lies, if its first tile is to pack it.
  Strided<T> right_in_place(int64_t j) const {
    const Range columns = cut_.right.lanes(j);
    if (product_.share_right || by_rows_ || columns.size() < cut_.nr) return {};
    const Strided<T> panel = product_.right->in_place(columns);
    return panel.lane_stride == 1 ? panel : Strided<T>{};
  }

  // The right panels that no tile packs.
  void pack_right(Range k) {
    for (int64_t j = right_.begin; j < right_.end; ++j) {
      const int64_t first = j;
      while (j < right_.end && right_in_place(j).data == nullptr) ++j;
      pack_panels(*product_.right, cut_.right, {first, j}, k, right_panel(first, k), scratch_);
    }
  }

  // Panels lie [block of k][panel][k][width]; those that a task packs for itself, one block at a time.
  const T* left_panel(int64_t i, Range k) const {
    if (cut_.left_in_place)
      return left_data_.data + i * cut_.mr * left_data_.lane_stride + k.begin * left_data_.k_stride;
    return packed_left_ + before(cut_.left, i, left_.begin, product_.share_left, k);
  }
  T* right_panel(int64_t j, Range k) const {
    return packed_right_ + before(cut_.right, j, right_.begin, product_.share_right, k);
  }
  static int64_t before(const Panels& panels, int64_t i, int64_t first, bool shared, Range k) {
    if (shared) return panels.padded() * k.begin + panels.first(i) * k.size();
    return (panels.first(i) - panels.first(first)) * k.size();
  }

  // Each tile of these left panels fetches a slice of the next ones, if they follow: the first tiles to read them would
  // take twice as long, and a loop of prefetches between the tiles as long as it saves.
  void fetch_ahead(Range left, Range k) {
    const bool follow = by_rows_ ? left_data_.lane_stride == k.size() : product_.share_left && !cut_.left_in_place;
    ahead_ = {product_.result, 0};
    if (follow) ahead_ = {left_panel(left.end, k), ceil_div(static_cast<int64_t>(cut_.mr), right_.size())};
  }

  typename GemmKernels<T>::Tile tile_kernel(int width) const {
    if (by_rows_) return kernel_.tiles_by_rows[width / vector_lanes<T>()];
    return width == vector_lanes<T>() ? kernel_.tile_vector : kernel_.tile;
  }

  // The tiles of one right panel with some left ones.
  void column(int64_t j, Range left, Range k, int64_t block) {
    const int mr = cut_.mr, nr = cut_.nr;
    const auto cols = static_cast<int>(cut_.right.lanes(j).size()), width = static_cast<int>(cut_.right.width(j));
    const int64_t* col_offsets = col_offsets_ + cut_.right.first(j) - cut_.right.first(right_.begin);
    const bool contiguous = width == 1 || (cols == width && uniform_step(col_offsets, cols) == 1);
    const auto kernel = tile_kernel(width);
    T* b = right_panel(j, k);
    const Strided<T> source = left.begin == left_.begin ? right_in_place(j) : Strided<T>{};
    const auto tile = [&](int64_t i, const T* a, const T* init, T* out, int64_t out_stride, int rows,
                          const Epilogue<T>& epilogue) {
      if (source.data != nullptr && i == left.begin) {
        kernel_.tile_packing(k.size(), a, left_stride_, source.data + k.begin * source.k_stride, source.k_stride, b,
                             init, out, out_stride, rows, epilogue);
      } else {
        kernel(k.size(), a, left_stride_, b, width, init, out, out_stride, rows, epilogue, ahead_);
      }
      ahead_.data += ahead_.step * k.size();
    };
    for (int64_t i = left.begin; i < left.end; ++i) {
      const int rows = static_cast<int>(std::min<int64_t>(mr, product_.m - i * mr));
      const T* a = left_panel(i, k);
      T* partial = partial_ + ((i - left_.begin) * partial_row_ + (j - right_.begin)) * mr * nr;
      const T* init = block > blocks_.begin ? partial : nullptr;
      if (cut_.k_blocks > 1 && i + 1 < left.end) {  // the next tile's sums have left the second-level cache
        const T* next = partial + partial_row_ * mr * nr;
        for (int e = 0; e < mr * nr; e += static_cast<int>(kCacheLine / sizeof(T))) __builtin_prefetch(next + e, 1);
      }
      if (block + 1 < blocks_.end || cut_.parts > 1) {
        tile(i, a, init, partial, nr, rows, {});
        continue;
      }
      const Epilogue<T> epilogue{row_bias_ != nullptr ? row_bias_ + i * mr : nullptr,
                                 col_bias_ != nullptr ? col_bias_ + cut_.right.first(j) : nullptr, product_.relu};
      const int64_t* row_offsets = row_offsets_ + (i - left_.begin) * mr;
      if (const auto row_step = row_step_ ? row_step_ : uniform_step(row_offsets, rows); contiguous && row_step) {
        tile(i, a, init, product_.result + row_offsets[0] + col_offsets[0], *row_step, rows, epilogue);
      } else {
        alignas(kCacheLine) T values[kMaxTile];
        tile(i, a, init, values, nr, rows, epilogue);
        scatter(values, row_offsets, rows, col_offsets, cols);
      }
    }
  }

  // One tile: the sum of its parts, in order, to the result.
  void add_tile_parts(int64_t i, int64_t j) {
    const int mr = cut_.mr, nr = cut_.nr;
    const int rows = static_cast<int>(std::min<int64_t>(mr, product_.m - i * mr));
    const auto cols = static_cast<int>(cut_.right.lanes(j).size());
    const int64_t part_size = cut_.left.count() * cut_.right.count() * mr * nr;
    T* sum = partial_ + ((i - left_.begin) * partial_row_ + (j - right_.begin)) * mr * nr;
    for (int64_t part = 1; part < cut_.parts; ++part) {
      const T* other = sum + part * part_size;
      for (int row = 0; row < rows; ++row) {
        for (int col = 0; col < cols; ++col) sum[row * nr + col] += other[row * nr + col];
      }
    }
    scatter(sum, row_offsets_ + (i - left_.begin) * mr, rows,
            col_offsets_ + cut_.right.first(j) - cut_.right.first(right_.begin), cols);
  }

  // A tile to where its rows and columns lie, a run of columns as far from each other at a time.
  void scatter(const T* tile, const int64_t* row_offsets, int rows, const int64_t* col_offsets, int cols) {
    const auto row_step = uniform_step(row_offsets, rows);
    for (int begin = 0, end = 0; begin < cols; begin = end) {
      const int64_t step = begin + 1 < cols ? col_offsets[begin + 1] - col_offsets[begin] : 1;
      do {
        ++end;
      } while (end < cols && col_offsets[end] - col_offsets[end - 1] == step);
      T* out = product_.result + row_offsets[0] + col_offsets[begin];
      if (row_step && (step == 1 || step == 2)) {
        layout_kernels<T>().copy_rows(out, *row_step, step, tile + begin, cut_.nr, 1, rows, end - begin);
        continue;
      }
      for (int row = 0; row < rows; ++row) {
        for (int col = begin; col < end; ++col) {
          product_.result[row_offsets[row] + col_offsets[col]] = tile[row * cut_.nr + col];
        }
      }
    }
  }

  const Product<T>& product_;
  const ProductCut& cut_;
  const GemmKernels<T>& kernel_ = gemm_kernels<T>();
  Range left_, right_, blocks_;
  Strided<T> left_data_;  // if the left operand is read where it lies
  bool by_rows_;          // and contiguous along k
  int64_t left_stride_;
  Ahead<T> ahead_;
  T *packed_left_, *packed_right_, *partial_;
  int64_t partial_row_;  // tiles from one left panel's sums to the next one's
  const T *row_bias_, *col_bias_;
  int64_t *row_offsets_, *col_offsets_;
  std::optional<int64_t> row_step_;  // if one holds for all rows
  std::byte* scratch_;
};

template <class T>
void pack_shared(const Product<T>& p, const ProductCut& cut, const Layout& layout, const Operand<T>& operand,
                 const Panels& panels, int threads, std::byte* workspace, T* out) {
  const Blocks some(panels.count(), std::min(kPackedPanels, ceil_div(panels.count(), kEnoughTasks)));
  parallel_for(cut.k_blocks * some.count, threads, [&](int64_t task, int slot) {
    std::byte* scratch = workspace + layout.shared + static_cast<std::size_t>(slot) * layout.thread + layout.scratch;
    const int64_t block = task / some.count;
    const Range k{block * cut.k_block, std::min(p.k, (block + 1) * cut.k_block)}, range = some[task % some.count];
    T* first = out + panels.padded() * k.begin + panels.first(range.begin) * k.size();
    pack_panels(operand, panels, range, k, first, scratch);
  });
}

}  // namespace

void Lattice::offsets(Range lanes, int64_t* out) const {
  std::array<int64_t, 4> at{};
  int64_t rest = lanes.begin;
  for (std::size_t axis = 4; axis-- > 0; rest /= extent[axis]) at[axis] = rest % extent[axis];
  for (int64_t lane = lanes.begin; lane < lanes.end;) {
    const int64_t start = at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2];
    for (; at[3] < extent[3] && lane < lanes.end; ++at[3], ++lane) *out++ = start + at[3] * stride[3];
    for (std::size_t axis = 3; axis > 0 && at[axis] == extent[axis]; --axis) {
      at[axis] = 0;
      ++at[axis - 1];
    }
  }
}

template <class T>
void MatrixOperand<T>::pack(T* panels, int width, Range lanes, Range k, std::byte*) const {
  const LayoutKernels<T>& layout = layout_kernels<T>();
  const T* data = data_ + lanes.begin * lane_stride_ + k.begin * k_stride_;
  if (lane_stride_ == 1) return layout.pack_lanes(panels, width, data, k_stride_, lanes.size(), k.size());
  for (int64_t first = 0; first < lanes.size();
       first += width, panels += k.size() * width, data += width * lane_stride_) {
    const int count = static_cast<int>(std::min<int64_t>(width, lanes.size() - first));
    if (k_stride_ == 1) {
      std::array<const T*, kMaxWidth> rows{};
      for (int i = 0; i < count; ++i) rows[static_cast<std::size_t>(i)] = data + i * lane_stride_;
      layout.pack_rows(panels, width, rows.data(), count, k.size());
      continue;
    }
    for (int64_t j = 0; j < k.size(); ++j) {
      for (int i = 0; i < width; ++i) panels[j * width + i] = i < count ? data[i * lane_stride_ + j * k_stride_] : T(0);
    }
  }
}

template <class T>
void multiply(const Product<T>& p, int threads, std::size_t workspace_limit) {
  const ProductCut cut = cut_product(p);
  const int64_t left_panels = cut.left.count(), right_panels = cut.right.count();
  const Layout layout = make_layout(p, cut);
  threads = threads_within(workspace_limit, layout.shared, layout.thread, threads, "implicit");
  const double flops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  if (flops < kSerialFlops) threads = 1;
  const Workspace memory(layout.shared + static_cast<std::size_t>(threads) * layout.thread);
  std::byte* const workspace = memory.at<std::byte>(0);
  const auto shared = [&](std::size_t offset) { return reinterpret_cast<T*>(workspace + offset); };
  if (p.share_left && !cut.left_in_place) {
    pack_shared(p, cut, layout, *p.left, cut.left, threads, workspace, shared(layout.left));
  }
  if (p.share_right) {
    pack_shared(p, cut, layout, *p.right, cut.right, threads, workspace, shared(layout.right));
  }
  for (int64_t i = 0; p.row_bias.data != nullptr && i < cut.left.padded(); ++i) {
    shared(layout.row_bias)[i] = i < p.m ? p.row_bias[i] : T(0);
  }
  for (int64_t j = 0; p.col_bias.data != nullptr && j < cut.right.padded(); ++j) {
    shared(layout.col_bias)[j] = j < p.n ? p.col_bias[j] : T(0);
  }
  const Blocks left(left_panels, cut.task_left), right(right_panels, cut.task_right);
  parallel_for(cut.parts * left.count * right.count, threads, [&](int64_t task, int slot) {
    std::byte* own = workspace + layout.shared + static_cast<std::size_t>(slot) * layout.thread;
    const int64_t part = task % cut.parts, block = task / cut.parts;
    Task<T>(p, cut, layout, left[block / right.count], right[block % right.count], part, workspace, own).run();
  });
  if (cut.parts == 1) return;
  parallel_for(left.count * right.count, threads, [&](int64_t block, int slot) {
    std::byte* own = workspace + layout.shared + static_cast<std::size_t>(slot) * layout.thread;
    Task<T>(p, cut, layout, left[block / right.count], right[block % right.count], 0, workspace, own).add_parts();
  });
}

template class MatrixOperand<float>;
template class MatrixOperand<double>;
template void multiply(const Product<float>&, int, std::size_t);
template void multiply(const Product<double>&, int, std::size_t);

}  // namespace fastconv::cpu
