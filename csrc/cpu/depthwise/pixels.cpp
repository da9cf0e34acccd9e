// Channels last: lanes are channels, and memory is walked as it lies.
#include "pixels.hpp"

#include <algorithm>
#include <memory>

#include "cpu/tuning.hpp"
#include "cpu/walk/parts.hpp"
#include "jobs.hpp"

namespace fastconv::cpu::depthwise {
namespace {

using namespace tuning::depthwise;

// Vectors of channels and bands of rows, and what a pair of them covers.
struct PixelBlocks {
  int64_t lanes, channels;
  Blocks vectors, bands;

  PixelBlocks(const ConvShape& s, int64_t vector_lanes)
      : lanes(vector_lanes), channels(s.k), vectors(ceil_div(s.k, lanes), kVectors), bands(s.axis[1].out, kBandRows) {}

  Range channels_of(Range some) const { return {some.begin * lanes, std::min(channels, some.end * lanes)}; }
};

template <class T>
class PixelsJob final : public Job {
 public:
  PixelsJob(const Correlation<T>& c, std::size_t limit)
      : Job(kPixels),
        s_(c.shape),
        x_(c.x),
        w_(c.w),
        finish_(c.finish),
        y_(c.y),
        blocks_(s_, vector_lanes<T>()),
        kernels_(s_, x_.stride, y_.stride) {
    weights_ = scratch_.shared<T>(blocks_.vectors.extent, vector_weights_);
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    T* weights = Arrays(scratch_, memory)(weights_);
    pack_pixel_weights(s_, w_, finish_.bias, weights);
    const int64_t depth = s_.axis[0].out, vectors = blocks_.vectors.count, bands = blocks_.bands.count;
    parallel_for(s_.n * depth * bands * vectors, scratch_.threads(), [&](int64_t unit, int) noexcept {
      const Range some = blocks_.vectors[unit % vectors], channels = blocks_.channels_of(some);
      const int64_t row = unit / vectors, plane = row / bands, n = plane / depth;
      kernels_.correlate(x_.at(n, channels.begin), y_.at(n, channels.begin), plane % depth, blocks_.bands[row % bands],
                         channels.size(), weights + some.begin * vector_weights_, finish_.relu);
    });
  }

 private:
  ConvShape s_;
  Tensor<const T> x_, w_;
  Finish<T> finish_;
  Tensor<T> y_;
  PixelBlocks blocks_;
  Pixels<T> kernels_;
  int64_t vector_weights_ = (s_.taps() + 1) * vector_lanes<T>();  // the bias behind the taps
  SharedArray<T> weights_;
};

template <class T>
class ReducePixelsJob final : public Job {
 public:
  ReducePixelsJob(const Reduction<T>& r, std::size_t limit)
      : Job(kPixels),
        s_(r.shape),
        dy_(r.dy),
        x_(r.x),
        dw_(r.dw),
        blocks_(s_, vector_lanes<T>()),
        parts_(units_, ceil_div(units_, ceil_div(kMinTasks, blocks_.vectors.count))),
        kernels_(s_, x_.stride, dy_.stride) {
    sums_ = scratch_.shared<T>(parts_.count, part_sums_);
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    T* sums = Arrays(scratch_, memory)(sums_);
    const int64_t vectors = blocks_.vectors.count;
    parallel_for(parts_.count * vectors, scratch_.threads(), [&](int64_t task, int) noexcept {
      const Range some = blocks_.vectors[task % vectors];
      T* sum = sums + task / vectors * part_sums_ + some.begin * vector_sums_;
      std::fill_n(sum, some.size() * vector_sums_, T(0));
      reduce(parts_[task / vectors], blocks_.channels_of(some), sum);
    });
    sum_parts(sums, parts_.count, part_sums_, part_sums_);
    write_pixel_gradients(s_, sums, dw_);
  }

 private:
  void reduce(Range units, Range channels, T* sum) const noexcept {
    const int64_t depth = s_.axis[0].out, bands = blocks_.bands.count;
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      const int64_t plane = unit / bands, n = plane / depth;
      kernels_.reduce(x_.at(n, channels.begin), dy_.at(n, channels.begin), plane % depth, blocks_.bands[unit % bands],
                      channels.size(), sum);
    }
  }

  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
  PixelBlocks blocks_;
  int64_t units_ = s_.n * s_.axis[0].out * blocks_.bands.count;
  Blocks parts_;  // of the outputs, each with sums of its own: memory is then read as it lies
  Pixels<T> kernels_;
  int64_t vector_sums_ = s_.taps() * vector_lanes<T>(), part_sums_ = blocks_.vectors.extent * vector_sums_;
  SharedArray<T> sums_;  // [part][vector][tap][lanes]
};

}  // namespace

template <class T>
std::unique_ptr<const Job> pixels_job(const Correlation<T>& c, std::size_t limit) {
  return std::make_unique<PixelsJob<T>>(c, limit);
}

template <class T>
std::unique_ptr<const Job> pixels_job(const Reduction<T>& r, std::size_t limit) {
  return std::make_unique<ReducePixelsJob<T>>(r, limit);
}

#define FASTCONV_INSTANTIATE(T)                                                       \
  template std::unique_ptr<const Job> pixels_job(const Correlation<T>&, std::size_t); \
  template std::unique_ptr<const Job> pixels_job(const Reduction<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
