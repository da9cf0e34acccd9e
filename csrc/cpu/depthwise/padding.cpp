// Zeros of the padding times what is not finite are NaN: in y those of w, in dw those of dy.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "cpu/walk/extents.hpp"
#include "cpu/walk/finite.hpp"
#include "cpu/walk/taps.hpp"
#include "jobs.hpp"

namespace fastconv::cpu::depthwise {
namespace {

constexpr bool holds(Range range, int64_t i) { return range.begin <= i && i < range.end; }

// Whether all filters [K, 1, T, R, S] are finite; fast where they are one run.
template <class T>
bool finite_filters(const ConvShape& s, const Tensor<const T>& w) {
  const auto cells = spatial_stride(w, filter_extents(s));
  if (cells == 1 && (s.k == 1 || w.stride[0] == s.taps())) return all_finite(w.data, s.k * s.taps());
  bool finite = true;
  for (int64_t k = 0; k < s.k; ++k) {
    for_each_cell(w, k, 0, filter_extents(s), {0, s.taps()},
                  [&](const T& cell, int64_t) { finite = finite && std::isfinite(cell); });
  }
  return finite;
}

template <class T>
class PaddedOutputsJob final : public Job {
 public:
  explicit PaddedOutputsJob(const ConvCall<T>& call)
      : Job({"padding", "sums skip the padding: filters that are not finite make NaN of it"}),
        s_(call.shape),
        w_(call.b),
        y_(call.out) {}

  void run(std::byte*) const noexcept override {
    if (finite_filters(s_, w_)) return;
    parallel_for(s_.n * s_.k, threads_for(s_), [&](int64_t plane, int) noexcept {
      const int64_t n = plane / s_.k, k = plane % s_.k;
      for_each_cell(w_, k, 0, filter_extents(s_), {0, s_.taps()}, [&](const T& cell, int64_t tap) {
        if (!std::isfinite(cell)) spoil(n, k, tap_at(s_, tap));
      });
    });
  }

 private:
  // The outputs of a plane at which a tap reads padding.
  void spoil(int64_t n, int64_t k, const Tap& tap) const noexcept {
    const auto& [depth, height, width] = s_.axis;
    const Range planes = depth.outputs(tap.t), rows = height.outputs(tap.r), columns = width.outputs(tap.s);
    for_each_run(out_extents(s_), {0, s_.pixels()}, [&](int64_t, int64_t z, int64_t p, Range q) {
      T* row = y_.at(n, k) + z * y_.stride[2] + p * y_.stride[3];
      const bool real = holds(planes, z) && holds(rows, p);
      for (int64_t i = q.begin; i < q.end; ++i) {
        if (!real || !holds(columns, i)) row[i * y_.stride[4]] = std::numeric_limits<T>::quiet_NaN();
      }
    });
  }

  ConvShape s_;
  Tensor<const T> w_;
  Tensor<T> y_;
};

template <class T>
class PaddedTapsJob final : public Job {
 public:
  explicit PaddedTapsJob(const ConvCall<T>& call)
      : Job({"padding", "sums skip the padding: gradients that are not finite make NaN of it"}),
        s_(call.shape),
        dy_(call.a),
        dw_(call.out) {
    for (const Axis& a : s_.axis) {
      for (int64_t o = 0; o < a.out; ++o) blind_ = blind_ || a.taps(o).size() == 0;
    }
  }

  // An output that reads any real cell leaves what is not finite in dw: only then is dy looked through.
  void run(std::byte*) const noexcept override {
    if (!blind_ && finite_filters<T>(s_, {dw_.data, dw_.stride})) return;
    parallel_for(s_.k, threads_for(s_), [&](int64_t k, int) noexcept {
      for (int64_t n = 0; n < s_.n; ++n) {
        for_each_cell(dy_, n, k, out_extents(s_), {0, s_.pixels()}, [&](const T& cell, int64_t output) {
          if (!std::isfinite(cell)) spoil(k, output);
        });
      }
    });
  }

 private:
  // The gradients of the taps that read padding at an output.
  void spoil(int64_t k, int64_t output) const noexcept {
    const auto& [depth, height, width] = s_.axis;
    const Range planes = depth.taps(output / width.out / height.out),
                rows = height.taps(output / width.out % height.out), columns = width.taps(output % width.out);
    for_each_cell(dw_, k, 0, filter_extents(s_), {0, s_.taps()}, [&](T& cell, int64_t number) {
      const Tap tap = tap_at(s_, number);
      if (!holds(planes, tap.t) || !holds(rows, tap.r) || !holds(columns, tap.s))
        cell = std::numeric_limits<T>::quiet_NaN();
    });
  }

  ConvShape s_;
  Tensor<const T> dy_;
  Tensor<T> dw_;
  bool blind_ = false;  // whether some outputs read no real cell
};

}  // namespace

bool meets_padding(const ConvShape& s) {
  return std::any_of(s.axis.begin(), s.axis.end(), [](const Axis& a) { return a.inner_outputs().size() < a.out; });
}

template <class T>
std::unique_ptr<const Job> padding_job(const ConvCall<T>& call) {
  if (call.pass == Pass::forward) return std::make_unique<PaddedOutputsJob<T>>(call);
  return std::make_unique<PaddedTapsJob<T>>(call);
}

template std::unique_ptr<const Job> padding_job(const ConvCall<float>&);
template std::unique_ptr<const Job> padding_job(const ConvCall<double>&);

}  // namespace fastconv::cpu::depthwise
