// Planes and filters of 3x3: lanes are outputs of a row.
#include <algorithm>
#include <memory>

#include "cpu/tuning.hpp"
#include "jobs.hpp"
#include "pixels.hpp"

namespace fastconv::cpu::depthwise {
namespace {

template <class T>
class Planes3x3Job final : public Job {
 public:
  Planes3x3Job(const Correlation<T>& c, std::size_t limit)
      : Job(kPlanes3x3),
        s_(c.shape),
        x_(c.x),
        w_(c.w),
        finish_(c.finish),
        y_(c.y),
        blocks_(s_.k, s_.group_k() > 1 ? 1 : tuning::depthwise::kTaskCells / std::max(s_.cells(), s_.pixels())) {
    weights_ = scratch_.shared<T>(s_.k, 9);
    biases_ = scratch_.shared<T>(s_.k);
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte* memory) const noexcept override {
    const Arrays at(scratch_, memory);
    T *weights = at(weights_), *biases = finish_.bias.data != nullptr ? at(biases_) : nullptr;
    for (int64_t k = 0; k < s_.k; ++k) {
      copy_filter(s_, w_, k, weights + 9 * k);
      if (biases != nullptr) biases[k] = finish_.bias[k];
    }
    const auto correlate = depthwise_kernels<T>().planes3x3[stride3x3(s_) - 1];
    parallel_for(s_.n * blocks_.count, scratch_.threads(), [&](int64_t task, int) noexcept {
      const Range planes = blocks_[task % blocks_.count];
      const int64_t n = task / blocks_.count, k = planes.begin;
      for (int64_t z = 0; z < s_.axis[0].out; ++z) {
        correlate(planes.size(), output_rows(s_, y_, n, k, z, {0, s_.axis[1].out}), y_.stride[1],
                  input_plane(s_, x_, n, k / s_.group_k(), z), x_.stride[1], s_.axis[1].pad_begin, s_.axis[2].pad_begin,
                  weights + 9 * k, biases == nullptr ? nullptr : biases + k, finish_.relu);
      }
    });
  }

 private:
  ConvShape s_;
  Tensor<const T> x_, w_;
  Finish<T> finish_;
  Tensor<T> y_;
  Blocks blocks_;  // of planes: small ones, of x and y alike, are a task together
  SharedArray<T> weights_, biases_;
};

template <class T>
class ReducePlanes3x3Job final : public Job {
 public:
  ReducePlanes3x3Job(const Reduction<T>& r, std::size_t limit)
      : Job(kPlanes3x3), s_(r.shape), dy_(r.dy), x_(r.x), dw_(r.dw) {
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte*) const noexcept override {
    const auto reduce = depthwise_kernels<T>().reduce_planes3x3[stride3x3(s_) - 1];
    parallel_for(s_.k, scratch_.threads(), [&](int64_t k, int) noexcept {
      T sums[9] = {};
      for (int64_t z = 0; z < s_.axis[0].out; ++z) {
        reduce(s_.n, output_rows(s_, dy_, 0, k, z, {0, s_.axis[1].out}), dy_.stride[0],
               input_plane(s_, x_, 0, k / s_.group_k(), z), x_.stride[0], s_.axis[1].pad_begin, s_.axis[2].pad_begin,
               sums);
      }
      for_each_cell(dw_, k, 0, filter_extents(s_), {0, 9}, [&](T& cell, int64_t tap) { cell = sums[tap]; });
    });
  }

 private:
  ConvShape s_;
  Tensor<const T> dy_, x_;
  Tensor<T> dw_;
};

template <class T>
class SpreadPlanesJob final : public Job {
 public:
  SpreadPlanesJob(const ConvCall<T>& call, std::size_t limit)
      : Job(kSpreadPlanes), s_(call.shape), dy_(call.a), w_(call.b), dx_(call.out) {
    scratch_.fit(limit, threads_for(s_), "direct");
  }

  void run(std::byte*) const noexcept override {
    parallel_for(s_.n * s_.c, scratch_.threads(), [&](int64_t plane, int) noexcept {
      const auto& [depth, height, width] = s_.axis;
      const int64_t n = plane / s_.c, c = plane % s_.c;
      T weights[9];
      copy_filter(s_, w_, c, weights);
      depthwise_kernels<T>().spread_plane3x3({dx_.at(n, c), dx_.stride[3], 1, height.in, width.in},
                                             output_rows(s_, dy_, n, c, 0, {0, height.out}), height.pad_begin,
                                             width.pad_begin, weights);
    });
  }

 private:
  ConvShape s_;
  Tensor<const T> dy_, w_;
  Tensor<T> dx_;
};

}  // namespace

template <class T>
std::unique_ptr<const Job> planes3x3_job(const Correlation<T>& c, std::size_t limit) {
  return std::make_unique<Planes3x3Job<T>>(c, limit);
}

template <class T>
std::unique_ptr<const Job> planes3x3_job(const Reduction<T>& r, std::size_t limit) {
  return std::make_unique<ReducePlanes3x3Job<T>>(r, limit);
}

template <class T>
std::unique_ptr<const Job> spread_planes_job(const ConvCall<T>& call, std::size_t limit) {
  return std::make_unique<SpreadPlanesJob<T>>(call, limit);
}

#define FASTCONV_INSTANTIATE(T)                                                          \
  template std::unique_ptr<const Job> planes3x3_job(const Correlation<T>&, std::size_t); \
  template std::unique_ptr<const Job> planes3x3_job(const Reduction<T>&, std::size_t);   \
  template std::unique_ptr<const Job> spread_planes_job(const ConvCall<T>&, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
