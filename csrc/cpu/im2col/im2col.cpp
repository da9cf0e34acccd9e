// Per image n and group g, with F = C/groups * T*R*S filter cells and pixels = Z*P*Q:
//
//   patches[F, pixels]   patches[(c,t,r,s), (z,p,q)] = x[n, c, z*stride + t*dilation - pad, ...], 0 in the padding
//   fprop   y[n][K, pixels]  = w[K, F] patches
//   dgrad   patches          = w^T dy[n], added cell by cell into dx[n] (col2im)
//   wgrad   dw[K, F]         = sum over n of dy[n] patches^T
//
// The mapping is that of cuDNN, arXiv 1410.0759. Patches are made one block of pixels at a time, so that they are still
// in cache when BLAS reads them. Blocks and partial sums are cut by geometry alone: every thread count gives the same
// bits.
#include "im2col.hpp"

#include "blas.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/patches.hpp"

namespace fastconv::cpu::im2col {
namespace {

constexpr int64_t kPatchBytes = 2 << 20;  // a block of patches: a core's share of the outer caches
constexpr int64_t kMinPixels = 192;       // narrower blocks make BLAS pack the filters too often
constexpr int64_t kMinTasks = 4;          // what a batch of one is cut into
constexpr int64_t kMinChannels = 16;      // the fewest that are worth a task of their own

int64_t filter_cells(const ConvShape& s) { return s.group_c() * s.taps(); }

// How a pass is cut into tasks.
struct Cut {
  Blocks images, pixels;  // pixels of one image
  Blocks channels;        // of one group: K for fprop, C for the gradients
};

Blocks cut_channels(int64_t channels, int64_t other_tasks) {
  const int64_t wanted = ceil_div(kMinTasks, std::max<int64_t>(1, other_tasks));
  return {channels, std::max(kMinChannels, ceil_div(channels, wanted))};
}

Cut make_cut(Pass pass, const ConvShape& s, std::size_t itemsize) {
  const int64_t column_bytes = static_cast<int64_t>(itemsize) * std::max<int64_t>(1, filter_cells(s));
  const Blocks pixels(s.pixels(), std::max(kMinPixels, kPatchBytes / column_bytes));
  if (pass == Pass::forward) return {{s.n, 1}, pixels, cut_channels(s.group_k(), s.n * s.groups * pixels.count)};
  if (pass == Pass::input) return {{s.n, 1}, pixels, cut_channels(s.group_c(), s.n * s.groups)};
  // wgrad: a block of images has a partial sum of its own.
  const Blocks channels = cut_channels(s.group_c(), s.groups);
  return {{s.n, ceil_div(s.n, ceil_div(kMinTasks, s.groups * channels.count))}, pixels, channels};
}

// Workspace: [shared by all threads][one block a thread], all offsets in bytes.
struct Layout {
  std::size_t filters;           // shared: w or dw as a contiguous [K, F], one for each partial sum
  std::size_t patches, channel;  // a thread's: patches[F, pixels] and rows of y or dy [K/groups, pixels]

  std::size_t thread() const { return patches + channel; }
};

Layout make_layout(Pass pass, const ConvShape& s, const Cut& cut, std::size_t itemsize) {
  const auto size = [&](int64_t rows, int64_t cols) { return array_bytes(rows, cols, itemsize); };
  const int64_t copies = pass == Pass::weight ? cut.images.count : 1;
  const int64_t rows = pass == Pass::forward ? filter_cells(s) : cut.channels.size * s.taps();
  const int64_t k = pass == Pass::forward ? cut.channels.size : s.group_k();
  return {size(copies * s.k, filter_cells(s)), size(rows, cut.pixels.size), size(k, cut.pixels.size)};
}

// One image's [channels, pixels], where BLAS can use it in place.
template <class T>
std::optional<Matrix<T>> image_matrix(const Tensor<T>& t, int64_t n, Range channels, Range pixels,
                                      const Extents& extents) {
  const auto stride = spatial_stride(t, extents);
  if (!stride) return std::nullopt;
  const Matrix<T> m{t.at(n, channels.begin) + pixels.begin * *stride, channels.size(), pixels.size(), t.stride[1],
                    *stride};
  return blas_matrix(m) ? std::optional(m) : std::nullopt;
}

// The filters [K, F], where BLAS can use them in place.
template <class T>
std::optional<Matrix<T>> filter_matrix(const ConvShape& s, const Tensor<T>& w) {
  const auto cells = spatial_stride(w, filter_extents(s));
  const auto stride = cells ? joined_stride({{s.taps(), *cells}, {s.group_c(), w.stride[1]}}) : cells;
  if (!stride) return std::nullopt;
  const Matrix<T> m{w.data, s.k, filter_cells(s), w.stride[0], *stride};
  return blas_matrix(m) ? std::optional(m) : std::nullopt;
}

template <class T>
Matrix<T> dense(T* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols, 1};
}

// w where it lies, or copied to `packed`.
template <class T>
Matrix<const T> readable_filters(const ConvShape& s, const Tensor<const T>& w, T* packed) {
  if (const auto matrix = filter_matrix(s, w)) return *matrix;
  for (int64_t k = 0; k < s.k; ++k) {
    for (int64_t c = 0; c < s.group_c(); ++c) {
      T* out = packed + (k * s.group_c() + c) * s.taps();
      for_each_cell(w, k, c, filter_extents(s), {0, s.taps()}, [&](const T& cell, int64_t i) { out[i] = cell; });
    }
  }
  return dense<const T>(packed, s.k, filter_cells(s));
}

// The patches of some channels, read in place where a patch is a pixel.
template <class T>
Matrix<const T> readable_patches(const ConvShape& s, const Tensor<const T>& x, int64_t n, Range channels, Range pixels,
                                 T* scratch) {
  if (s.pointwise()) {
    if (const auto matrix = image_matrix(x, n, channels, pixels, in_extents(s))) return *matrix;
  }
  gather(s, x, n, channels, pixels, scratch);
  return dense<const T>(scratch, channels.size() * s.taps(), pixels.size());
}

// dy[n] of some channels, where it lies or copied to `scratch`.
template <class T>
Matrix<const T> readable_gradient(const ConvShape& s, const Tensor<const T>& dy, int64_t n, Range channels,
                                  Range pixels, T* scratch) {
  if (const auto matrix = image_matrix(dy, n, channels, pixels, out_extents(s))) return *matrix;
  for (int64_t k = channels.begin; k < channels.end; ++k) {
    T* row = scratch + (k - channels.begin) * pixels.size();
    for_each_cell(dy, n, k, out_extents(s), pixels, [&](const T& cell, int64_t i) { row[i] = cell; });
  }
  return dense<const T>(scratch, channels.size(), pixels.size());
}

// y = result + bias, through relu; `result` may be y itself.
template <class T>
void store(const ConvShape& s, Matrix<const T> result, const Vector<const T>& bias, bool relu, const Tensor<T>& y,
           int64_t n, Range channels, Range pixels) {
  for (int64_t k = channels.begin; k < channels.end; ++k) {
    const T b = bias.data != nullptr ? bias[k] : T(0);
    const T* row = result.data + (k - channels.begin) * result.row_stride;
    for_each_cell(y, n, k, out_extents(s), pixels, [&](T& cell, int64_t i) {
      const T value = row[i * result.col_stride] + b;
      cell = relu && value < 0 ? T(0) : value;  // NaN stays NaN
    });
  }
}

Range offset(Range r, int64_t by) { return {r.begin + by, r.end + by}; }

}  // namespace

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  const Cut cut = make_cut(Pass::forward, s, sizeof(T));
  const Layout layout = make_layout(Pass::forward, s, cut, sizeof(T));
  const int64_t tasks = s.n * s.groups * cut.pixels.count * cut.channels.count;
  const int threads = threads_within(workspace_limit, layout.filters, layout.thread(),
                                     static_cast<int>(std::min<int64_t>(tasks, num_threads())), "im2col");
  const Workspace memory(layout.filters + static_cast<std::size_t>(threads) * layout.thread());
  load_blas();
  const Matrix<const T> filters = readable_filters(s, w, memory.at<T>(0));
  const bool finish = bias.data != nullptr || relu;

  parallel_for(tasks, threads, [&](int64_t task, int slot) {
    const std::size_t scratch = layout.filters + static_cast<std::size_t>(slot) * layout.thread();
    const Range pixels = cut.pixels[task % cut.pixels.count];
    task /= cut.pixels.count;
    const Range block = cut.channels[task % cut.channels.count];
    task /= cut.channels.count;
    const int64_t n = task / s.groups, g = task % s.groups;
    const Range k = offset(block, g * s.group_k()), c = offset({0, s.group_c()}, g * s.group_c());

    const auto patches = readable_patches(s, x, n, c, pixels, memory.at<T>(scratch));
    const auto in_place = image_matrix(y, n, k, pixels, out_extents(s));
    const Matrix<T> result =
        in_place ? *in_place : dense(memory.at<T>(scratch + layout.patches), k.size(), pixels.size());
    gemm(filters.block(k.begin, 0, k.size(), filters.cols), patches, result, false);
    if (finish || !in_place) {
      store(s, {result.data, result.rows, result.cols, result.row_stride, result.col_stride}, bias, relu, y, n, k,
            pixels);
    }
  });
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, std::size_t workspace_limit) {
  const Cut cut = make_cut(Pass::input, s, sizeof(T));
  const Layout layout = make_layout(Pass::input, s, cut, sizeof(T));
  const int64_t tasks = s.n * s.groups * cut.channels.count;
  const int threads = threads_within(workspace_limit, layout.filters, layout.thread(),
                                     static_cast<int>(std::min<int64_t>(tasks, num_threads())), "im2col");
  const Workspace memory(layout.filters + static_cast<std::size_t>(threads) * layout.thread());
  load_blas();
  const Matrix<const T> filters = readable_filters(s, w, memory.at<T>(0));

  parallel_for(tasks, threads, [&](int64_t task, int slot) {  // owns some channels of one image of dx
    const std::size_t scratch = layout.filters + static_cast<std::size_t>(slot) * layout.thread();
    const Range block = cut.channels[task % cut.channels.count];
    task /= cut.channels.count;
    const int64_t n = task / s.groups, g = task % s.groups;
    const Range k = offset({0, s.group_k()}, g * s.group_k()), c = offset(block, g * s.group_c());
    const auto w_t = filters.block(k.begin, block.begin * s.taps(), k.size(), block.size() * s.taps()).transposed();

    const auto whole = s.pointwise() ? image_matrix(dx, n, c, {0, s.cells()}, in_extents(s)) : std::nullopt;
    if (!whole) {
      for (int64_t i = c.begin; i < c.end; ++i) {
        for_each_cell(dx, n, i, in_extents(s), {0, s.cells()}, [](T& cell, int64_t) { cell = T(0); });
      }
    }
    for (int64_t b = 0; b < cut.pixels.count; ++b) {
      const Range pixels = cut.pixels[b];
      const auto gradient = readable_gradient(s, dy, n, k, pixels, memory.at<T>(scratch + layout.patches));
      if (whole) {
        gemm(w_t, gradient, whole->block(0, pixels.begin, c.size(), pixels.size()), false);
      } else {
        const Matrix<T> patches = dense(memory.at<T>(scratch), w_t.rows, pixels.size());
        gemm(w_t, gradient, patches, false);
        scatter_add(s, dx, n, c, pixels, patches.data);
      }
    }
  });
}

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  const Cut cut = make_cut(Pass::weight, s, sizeof(T));
  const Layout layout = make_layout(Pass::weight, s, cut, sizeof(T));
  const int64_t partials = cut.images.count, size = s.k * filter_cells(s);
  const int64_t tasks = s.groups * cut.channels.count * partials;
  const int threads = threads_within(workspace_limit, layout.filters, layout.thread(),
                                     static_cast<int>(std::min<int64_t>(tasks, num_threads())), "im2col");
  const Workspace memory(layout.filters + static_cast<std::size_t>(threads) * layout.thread());
  load_blas();

  parallel_for(tasks, threads, [&](int64_t task, int slot) {  // owns some columns of one partial sum
    const std::size_t scratch = layout.filters + static_cast<std::size_t>(slot) * layout.thread();
    const int64_t partial = task % partials;
    task /= partials;
    const Range block = cut.channels[task % cut.channels.count];
    const int64_t g = task / cut.channels.count;
    const Range k = offset({0, s.group_k()}, g * s.group_k()), c = offset(block, g * s.group_c());
    const Matrix<T> sum = dense(memory.at<T>(0) + partial * size, s.k, filter_cells(s))
                              .block(k.begin, block.begin * s.taps(), k.size(), block.size() * s.taps());
    bool started = false;
    const Range images = cut.images[partial];
    for (int64_t n = images.begin; n < images.end; ++n) {
      for (int64_t b = 0; b < cut.pixels.count; ++b, started = true) {
        const auto patches = readable_patches(s, x, n, c, cut.pixels[b], memory.at<T>(scratch));
        const auto gradient = readable_gradient(s, dy, n, k, cut.pixels[b], memory.at<T>(scratch + layout.patches));
        gemm(gradient, patches.transposed(), sum, started);
      }
    }
  });

  parallel_for(s.k, threads, [&](int64_t k, int) {  // the partial sums, always in the same order
    for (int64_t c = 0; c < s.group_c(); ++c) {
      const T* row = memory.at<T>(0) + k * filter_cells(s) + c * s.taps();
      for_each_cell(dw, k, c, filter_extents(s), {0, s.taps()}, [&](T& cell, int64_t i) {
        T sum = row[i];
        for (int64_t p = 1; p < partials; ++p) sum += row[p * size + i];
        cell = sum;
      });
    }
  });
}

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);          \
  template void wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::im2col
