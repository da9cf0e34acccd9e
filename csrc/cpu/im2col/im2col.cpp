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

#include <algorithm>
#include <memory>
#include <optional>

#include "blas.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/parts.hpp"
#include "gather.hpp"

namespace fastconv::cpu::im2col {
namespace {

using namespace tuning::im2col;

constexpr Variant kPixels{"pixels", "filters of one cell: the patches are the pixels, read where BLAS can read them"};
constexpr Variant kPatches{"patches", "the patches of a block of pixels at a time, so that BLAS finds them in cache"};

Variant choose(const ConvShape& s) {
  if (s.pointwise()) return kPixels;
  return kPatches;
}

int64_t filter_cells(const ConvShape& s) { return s.group_c() * s.taps(); }

// How a pass is cut into tasks.
struct Cut {
  Blocks images, pixels;  // pixels of one image
  Blocks channels;        // of one group: K for the forward pass, C for the gradients
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
  // In the weight gradient a block of images has a partial sum of its own.
  const Blocks channels = cut_channels(s.group_c(), s.groups);
  return {{s.n, ceil_div(s.n, ceil_div(kMinTasks, s.groups * channels.count))}, pixels, channels};
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

// y = finish(result); `result` may be y itself.
template <class T>
void store(const ConvShape& s, const Matrix<T>& result, const Finish<T>& finish, const Tensor<T>& y, int64_t n,
           Range channels, Range pixels) {
  for (int64_t k = channels.begin; k < channels.end; ++k) {
    const T b = finish.bias_of(k);
    const T* row = result.data + (k - channels.begin) * result.row_stride;
    for_each_cell(y, n, k, out_extents(s), pixels, [&](T& cell, int64_t i) {
      const T value = row[i * result.col_stride] + b;
      cell = finish.relu && value < 0 ? T(0) : value;  // NaN stays NaN
    });
  }
}

Range offset(Range r, int64_t by) { return {r.begin + by, r.end + by}; }

// What the three passes share: the cut, and the arrays of scratch memory.
template <class T>
class Im2colJob : public Job {
 protected:
  Im2colJob(const ConvCall<T>& call, std::size_t limit)
      : Job(choose(call.shape)), s_(call.shape), cut_(make_cut(call.pass, s_, sizeof(T))) {
    const Pass pass = call.pass;
    const int64_t copies = pass == Pass::weight ? cut_.images.count : 1;
    const int64_t rows = pass == Pass::forward ? filter_cells(s_) : cut_.channels.size * s_.taps();
    const int64_t k = pass == Pass::forward ? cut_.channels.size : s_.group_k();
    filters_ = scratch_.template shared<T>(copies * s_.k, filter_cells(s_));
    patches_ = scratch_.template each<T>(rows, cut_.pixels.size);
    pixels_ = scratch_.template each<T>(k, cut_.pixels.size);
    tasks_ = s_.groups * cut_.channels.count *
             (pass == Pass::forward ? s_.n * cut_.pixels.count
              : pass == Pass::input ? s_.n
                                    : cut_.images.count);
    scratch_.fit(limit, static_cast<int>(std::min<int64_t>(tasks_, num_threads())), "im2col");
    load_blas();
  }

  ConvShape s_;
  Cut cut_;
  int64_t tasks_;
  SharedArray<T> filters_;  // w or dw as a contiguous [K, F], one for each partial sum
  ThreadArray<T> patches_;  // [F, pixels]
  ThreadArray<T> pixels_;   // rows of y or dy, [K/groups, pixels]
};

template <class T>
class ForwardJob final : public Im2colJob<T> {
 public:
  ForwardJob(const ConvCall<T>& call, std::size_t limit)
      : Im2colJob<T>(call, limit), x_(call.a), w_(call.b), finish_(call.finish), y_(call.out) {}

  void run(std::byte* memory) const noexcept override {
    const Arrays at(this->scratch_, memory);
    const Matrix<const T> filters = readable_filters(this->s_, w_, at(this->filters_));
    parallel_for(this->tasks_, this->scratch_.threads(),
                 [&](int64_t task, int slot) noexcept { multiply(filters, task, at, slot); });
  }

 private:
  // Some filters at some pixels of one image.
  void multiply(const Matrix<const T>& filters, int64_t task, const Arrays& at, int slot) const noexcept {
    const ConvShape& s = this->s_;
    const Cut& cut = this->cut_;
    const Range pixels = cut.pixels[task % cut.pixels.count];
    task /= cut.pixels.count;
    const Range block = cut.channels[task % cut.channels.count];
    task /= cut.channels.count;
    const int64_t n = task / s.groups, g = task % s.groups;
    const Range k = offset(block, g * s.group_k()), c = offset({0, s.group_c()}, g * s.group_c());

    const auto patches = readable_patches(s, x_, n, c, pixels, at(this->patches_, slot));
    const auto in_place = image_matrix(y_, n, k, pixels, out_extents(s));
    const Matrix<T> result = in_place ? *in_place : dense(at(this->pixels_, slot), k.size(), pixels.size());
    gemm(filters.block(k.begin, 0, k.size(), filters.cols), patches, result, false);
    if (finish_.needed() || !in_place) store(s, result, finish_, y_, n, k, pixels);
  }

  Tensor<const T> x_, w_;
  Finish<T> finish_;
  Tensor<T> y_;
};

template <class T>
class InputJob final : public Im2colJob<T> {
 public:
  InputJob(const ConvCall<T>& call, std::size_t limit)
      : Im2colJob<T>(call, limit), dy_(call.a), w_(call.b), finish_(call.finish), dx_(call.out) {}

  void run(std::byte* memory) const noexcept override {
    const Arrays at(this->scratch_, memory);
    const Matrix<const T> filters = readable_filters(this->s_, w_, at(this->filters_));
    parallel_for(this->tasks_, this->scratch_.threads(),
                 [&](int64_t task, int slot) noexcept { multiply(filters, task, at, slot); });
  }

 private:
  // Some channels of one image.
  void multiply(const Matrix<const T>& filters, int64_t task, const Arrays& at, int slot) const noexcept {
    const ConvShape& s = this->s_;
    const Cut& cut = this->cut_;
    const Range block = cut.channels[task % cut.channels.count];
    task /= cut.channels.count;
    const int64_t n = task / s.groups, g = task % s.groups;
    const Range k = offset({0, s.group_k()}, g * s.group_k()), c = offset(block, g * s.group_c());
    const auto w_t = filters.block(k.begin, block.begin * s.taps(), k.size(), block.size() * s.taps()).transposed();

    const auto whole = s.pointwise() ? image_matrix(dx_, n, c, {0, s.cells()}, in_extents(s)) : std::nullopt;
    if (!whole) for_each_input(n, c, [](T& cell, int64_t) { cell = T(0); });
    for (int64_t b = 0; b < cut.pixels.count; ++b) {
      const Range pixels = cut.pixels[b];
      const auto gradient = readable_gradient(s, dy_, n, k, pixels, at(this->pixels_, slot));
      if (whole) {
        gemm(w_t, gradient, whole->block(0, pixels.begin, c.size(), pixels.size()), false);
      } else {
        const Matrix<T> patches = dense(at(this->patches_, slot), w_t.rows, pixels.size());
        gemm(w_t, gradient, patches, false);
        scatter_add(s, dx_, n, c, pixels, patches.data);
      }
    }
    if (finish_.needed()) for_each_input(n, c, [&](T& cell, int64_t channel) { cell = finish_(cell, channel); });
  }

  // visit(cell, channel)
  template <class Visit>
  void for_each_input(int64_t n, Range channels, Visit visit) const {
    for (int64_t c = channels.begin; c < channels.end; ++c)
      for_each_cell(dx_, n, c, in_extents(this->s_), {0, this->s_.cells()}, [&](T& cell, int64_t) { visit(cell, c); });
  }

  Tensor<const T> dy_, w_;
  Finish<T> finish_;
  Tensor<T> dx_;
};

template <class T>
class WeightJob final : public Im2colJob<T> {
 public:
  WeightJob(const ConvCall<T>& call, std::size_t limit)
      : Im2colJob<T>(call, limit), dy_(call.a), x_(call.b), dw_(call.out) {}

  void run(std::byte* memory) const noexcept override {
    const Arrays at(this->scratch_, memory);
    const int threads = this->scratch_.threads();
    parallel_for(this->tasks_, threads, [&](int64_t task, int slot) noexcept { reduce(task, at, slot); });
    parallel_for(this->s_.k, threads, [&](int64_t k, int) noexcept { write(k, at(this->filters_)); });
  }

 private:
  // Some columns of one partial sum.
  void reduce(int64_t task, const Arrays& at, int slot) const noexcept {
    const ConvShape& s = this->s_;
    const Cut& cut = this->cut_;
    const int64_t part = task % cut.images.count;
    task /= cut.images.count;
    const Range block = cut.channels[task % cut.channels.count];
    const int64_t g = task / cut.channels.count;
    const Range k = offset({0, s.group_k()}, g * s.group_k()), c = offset(block, g * s.group_c());
    const Matrix<T> sum = dense(at(this->filters_) + part * s.k * filter_cells(s), s.k, filter_cells(s))
                              .block(k.begin, block.begin * s.taps(), k.size(), block.size() * s.taps());
    bool started = false;
    const Range images = cut.images[part];
    for (int64_t n = images.begin; n < images.end; ++n) {
      for (int64_t b = 0; b < cut.pixels.count; ++b, started = true) {
        const auto patches = readable_patches(s, x_, n, c, cut.pixels[b], at(this->patches_, slot));
        const auto gradient = readable_gradient(s, dy_, n, k, cut.pixels[b], at(this->pixels_, slot));
        gemm(gradient, patches.transposed(), sum, started);
      }
    }
  }

  // One filter's gradient, of the sums of all parts.
  void write(int64_t k, T* sums) const noexcept {
    const ConvShape& s = this->s_;
    T* row = sums + k * filter_cells(s);
    sum_parts(row, this->cut_.images.count, s.k * filter_cells(s), filter_cells(s));
    for (int64_t c = 0; c < s.group_c(); ++c, row += s.taps())
      for_each_cell(dw_, k, c, filter_extents(s), {0, s.taps()}, [&](T& cell, int64_t i) { cell = row[i]; });
  }

  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
};

template <class T>
void plan(const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
  if (call.pass == Pass::forward) return jobs.push_back(std::make_unique<ForwardJob<T>>(call, limit));
  if (call.pass == Pass::input) return jobs.push_back(std::make_unique<InputJob<T>>(call, limit));
  jobs.push_back(std::make_unique<WeightJob<T>>(call, limit));
}

}  // namespace

template <class T>
const ConvAlgorithm<T>& algorithm() {
  static constexpr Variant kVariants[] = {kPixels, kPatches};
  static constexpr ConvAlgorithm<T> im2col{Algorithm::im2col, kVariants, [](Pass, const ConvShape&) { return true; },
                                           plan<T>};
  return im2col;
}

template const ConvAlgorithm<float>& algorithm();
template const ConvAlgorithm<double>& algorithm();

}  // namespace fastconv::cpu::im2col
