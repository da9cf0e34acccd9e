// y[n,k,z,p,q] sums w[k,0,t,r,s] x[n,k/(K/groups),...] over the taps that do not lie in the padding.
//
// Channels last, lanes are channels, and the outputs are cut into rectangles that read the same taps: for a padded
// 3x3 filter the inside, four edges and four corners. In planes lanes are outputs of a row; 3x3 filters have kernels
// that read each row of x once for all the outputs it is part of, any other is computed a row of outputs at a time.
#include "depthwise.hpp"

#include <memory>

#include "cpu/runtime/isa.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/groups.hpp"
#include "jobs.hpp"
#include "pixels.hpp"

namespace fastconv::cpu::depthwise {
namespace {

using namespace tuning::depthwise;

template <class T, class U>
bool channels_last(const ConvShape& s, const Tensor<T>& x, const Tensor<U>& y) {
  return s.k > 1 && s.group_k() == 1 && x.stride[1] == 1 && y.stride[1] == 1;
}

template <class T, class U>
bool small_planes(const ConvShape& s, const Tensor<T>& x, const Tensor<U>& y) {
  return s.k > 1 && s.group_k() == 1 && s.cells() <= kSmallPlane && s.pixels() <= kSmallPlane &&
         spatial_stride(x, in_extents(s)) == 1 && spatial_stride(y, out_extents(s)) == 1;
}

// Small planes that the 3x3 kernels serve better all the same: with 8 lanes, or where a row leaves one of 16 free and
// is read once.
template <class T, class U>
bool rows_serve(const ConvShape& s, const Tensor<const T>& x, const Tensor<U>& y) {
  const int64_t lanes = vector_lanes<T>();
  return plane_stride3x3(s, x.stride[4], y.stride[4]) != 0 &&
         (lanes == 8 || (lanes > 8 && s.axis[2].in < lanes && s.axis[2].out <= lanes));
}

template <class T>
Variant choose(const Correlation<T>& c) {
  const auto& [s, x, w, finish, y] = c;
  if (channels_last(s, x, y)) return kPixels;
  if (small_planes(s, x, y) && !rows_serve(s, x, y)) return kSmallPlanes;
  if (plane_stride3x3(s, x.stride[4], y.stride[4]) != 0) return kPlanes3x3;
  return kRows;
}

template <class T>
Variant choose(const Reduction<T>& r) {
  const auto& [s, dy, x, dw] = r;
  if (channels_last(s, x, dy)) return kPixels;
  if (small_planes(s, x, dy) && (s.n == 1 || !rows_serve(s, x, dy))) return kSmallPlanes;
  if (plane_stride3x3(s, x.stride[4], dy.stride[4]) != 0) return kPlanes3x3;
  return kRows;
}

// Whether an input gradient is one pass over dx, not one for each phase of the stride.
template <class T>
bool spreads(const ConvCall<T>& call) {
  const ConvShape& s = call.shape;
  const bool flat = s.axis[0].in == 1 && s.axis[0].pointwise();
  return flat && !channels_last(s, call.a, call.out) && plane_stride3x3(s, call.out.stride[4], call.a.stride[4]) == 2;
}

template <class T, class Part>
std::unique_ptr<const Job> job_of(const Part& part, std::size_t limit) {
  const Variant variant = choose(part);
  if (variant == kPixels) return pixels_job(part, limit);
  if (variant == kSmallPlanes) return small_planes_job(part, limit);
  if (variant == kPlanes3x3) return planes3x3_job(part, limit);
  return rows_job(part, limit);
}

// The bias and ReLU of a transposed convolution, after all phases.
template <class T>
class FinishJob final : public Job {
 public:
  explicit FinishJob(const ConvCall<T>& call)
      : Job({"finish", "the bias and ReLU follow the sums"}), s_(call.shape), finish_(call.finish), y_(call.out) {}

  void run(std::byte*) const noexcept override {
    parallel_for(s_.n * s_.c, num_threads(), [&](int64_t plane, int) noexcept {
      const int64_t c = plane % s_.c;
      for_each_cell(y_, plane / s_.c, c, in_extents(s_), {0, s_.cells()},
                    [&](T& cell, int64_t) { cell = finish_(cell, c); });
    });
  }

 private:
  ConvShape s_;
  Finish<T> finish_;
  Tensor<T> y_;
};

template <class T>
void plan_input(const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
  if (spreads(call)) {
    jobs.push_back(spread_planes_job(call, limit));
  } else {
    const ConvCall<T> sums{call.pass, call.shape, call.a, call.b, {}, call.out};
    for_each_phase(sums, jobs, [&](const ConvShape& phase, const Tensor<const T>& taps, const Tensor<T>& inputs) {
      jobs.push_back(job_of<T>(Correlation<T>{phase, call.a, taps, {}, inputs}, limit));
    });
  }
  if (call.finish.needed()) jobs.push_back(std::make_unique<FinishJob<T>>(call));
}

template <class T>
void plan(const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
  const auto& [pass, shape, a, b, finish, out] = call;
  if (pass == Pass::input) return plan_input(call, limit, jobs);
  jobs.push_back(pass == Pass::forward ? job_of<T>(Correlation<T>{shape, a, b, finish, out}, limit)
                                       : job_of<T>(Reduction<T>{shape, a, b, out}, limit));
  if (meets_padding(shape)) jobs.push_back(padding_job(call));
}

}  // namespace

bool serves(Pass pass, const ConvShape& s) {
  return s.groups > 1 && s.group_c() == 1 && (pass != Pass::input || s.group_k() == 1);
}

template <class T>
const ConvAlgorithm<T>& algorithm() {
  static constexpr Variant kVariants[] = {kPixels, kSmallPlanes, kPlanes3x3, kRows, kSpreadPlanes};
  static constexpr ConvAlgorithm<T> depthwise{Algorithm::direct, kVariants, serves, plan<T>};
  return depthwise;
}

template const ConvAlgorithm<float>& algorithm();
template const ConvAlgorithm<double>& algorithm();

}  // namespace fastconv::cpu::depthwise
