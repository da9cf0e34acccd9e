// Planes so small that vectors along their rows would be mostly empty: some channels at a time become pixels in a
// stage, and their outputs planes again.
#include <algorithm>
#include <array>
#include <memory>

#include "jobs.hpp"
#include "pixels.hpp"

namespace fastconv::cpu::depthwise {
namespace {

std::array<int64_t, 5> stage_strides(const Extents& e, int64_t lanes) {
  return {0, 1, e[1] * e[2] * lanes, e[2] * lanes, lanes};
}

template <class T>
class SmallPlanesJob final : public Job {
 public:
  SmallPlanesJob(const Correlation<T>& c, std::size_t limit)
      : Job(kSmallPlanes),
        s_(c.shape),
        x_(c.x),
        w_(c.w),
        finish_(c.finish),
        y_(c.y),
        kernels_(s_, stage_strides(in_extents(s_), lanes_), stage_strides(out_extents(s_), lanes_)) {
    weights_ = scratch_.shared<T>(vectors_, vector_weights_);
    inputs_ = scratch_.each<T>(s_.cells(), lanes_);
    outputs_ = scratch_.each<T>(s_.pixels(), lanes_);
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T* weights = at(weights_);
    pack_pixel_weights(s_, w_, finish_.bias, weights);
    parallel_for(s_.n * vectors_, scratch_.threads(), [&](int64_t task, int slot) noexcept {
      const int64_t n = task / vectors_, vector = task % vectors_, c = vector * lanes_;
      const auto channels = static_cast<int>(std::min(lanes_, s_.k - c));
      T *inputs = at(inputs_, slot), *outputs = at(outputs_, slot);
      layout_kernels<T>().planes_to_pixels(inputs, lanes_, x_.at(n, c), x_.stride[1], channels, s_.cells());
      for (int64_t z = 0; z < s_.axis[0].out; ++z) {
        kernels_.correlate(inputs, outputs, z, {0, s_.axis[1].out}, lanes_, weights + vector * vector_weights_,
                           finish_.relu);
      }
      layout_kernels<T>().pixels_to_planes(y_.at(n, c), y_.stride[1], outputs, lanes_, channels, s_.pixels());
    });
  }

 private:
  ConvShape s_;
  Tensor<const T> x_, w_;
  Finish<T> finish_;
  Tensor<T> y_;
  int64_t lanes_ = vector_lanes<T>(), vectors_ = ceil_div(s_.k, lanes_);
  int64_t vector_weights_ = (s_.taps() + 1) * lanes_;  // the bias behind the taps
  Pixels<T> kernels_;
  SharedArray<T> weights_;
  ThreadArray<T> inputs_, outputs_;  // [cells][lanes], [pixels][lanes]
};

template <class T>
class ReduceSmallPlanesJob final : public Job {
 public:
  ReduceSmallPlanesJob(const Reduction<T>& r, std::size_t limit)
      : Job(kSmallPlanes),
        s_(r.shape),
        dy_(r.dy),
        x_(r.x),
        dw_(r.dw),
        kernels_(s_, stage_strides(in_extents(s_), lanes_), stage_strides(out_extents(s_), lanes_)) {
    sums_ = scratch_.shared<T>(vectors_, vector_sums_);
    inputs_ = scratch_.each<T>(s_.cells(), lanes_);
    gradients_ = scratch_.each<T>(s_.pixels(), lanes_);
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T* sums = at(sums_);
    std::fill_n(sums, vectors_ * vector_sums_, T(0));
    parallel_for(vectors_, scratch_.threads(), [&](int64_t vector, int slot) noexcept {
      const int64_t c = vector * lanes_;
      const auto channels = static_cast<int>(std::min(lanes_, s_.k - c));
      T *inputs = at(inputs_, slot), *gradients = at(gradients_, slot);
      for (int64_t n = 0; n < s_.n; ++n) {
        layout_kernels<T>().planes_to_pixels(inputs, lanes_, x_.at(n, c), x_.stride[1], channels, s_.cells());
        layout_kernels<T>().planes_to_pixels(gradients, lanes_, dy_.at(n, c), dy_.stride[1], channels, s_.pixels());
        for (int64_t z = 0; z < s_.axis[0].out; ++z)
          kernels_.reduce(inputs, gradients, z, {0, s_.axis[1].out}, lanes_, sums + vector * vector_sums_);
      }
    });
    write_pixel_gradients(s_, sums, dw_);
  }

 private:
  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
  int64_t lanes_ = vector_lanes<T>(), vectors_ = ceil_div(s_.k, lanes_), vector_sums_ = s_.taps() * lanes_;
  Pixels<T> kernels_;
  SharedArray<T> sums_;                // [vector][tap][lanes]
  ThreadArray<T> inputs_, gradients_;  // [cells][lanes], [pixels][lanes]
};

}  // namespace

template <class T>
std::unique_ptr<const Job> small_planes_job(const Correlation<T>& c, std::size_t limit) {
  return std::make_unique<SmallPlanesJob<T>>(c, limit);
}

template <class T>
std::unique_ptr<const Job> small_planes_job(const Reduction<T>& r, std::size_t limit) {
  return std::make_unique<ReduceSmallPlanesJob<T>>(r, limit);
}

#define FASTCONV_INSTANTIATE(T)                                                             \
  template std::unique_ptr<const Job> small_planes_job(const Correlation<T>&, std::size_t); \
  template std::unique_ptr<const Job> small_planes_job(const Reduction<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
