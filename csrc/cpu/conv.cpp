// Which algorithm serves a convolution, and the calls that hand it over.
#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>

#include "cpu/depthwise/depthwise.hpp"
#include "cpu/direct/direct.hpp"
#include "cpu/im2col/im2col.hpp"
#include "cpu/implicit/implicit.hpp"
#include "cpu/runtime/environment.hpp"
#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/call.hpp"
#include "cpu/walk/patches.hpp"
#include "cpu/winograd/winograd.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kManyOutputs = 256;  // channels, each of which multiplies a packed patch

bool empty_sum(const ConvShape& s) { return s.n == 0 || s.k == 0 || s.group_c() == 0; }

// One channel a group: the kernels of depthwise.hpp are what "direct" takes then.
bool depthwise_serves(Pass pass, const ConvShape& s) {
  return s.groups > 1 && s.group_c() == 1 && (pass != Pass::input || s.group_k() == 1);
}

bool serves(Algorithm algorithm, Pass pass, const ConvShape& s) {
  if (algorithm == Algorithm::winograd) return winograd::serves(s);
  if (algorithm == Algorithm::direct) return depthwise_serves(pass, s) || direct::serves(s);
  return algorithm != Algorithm::wgmma;
}

// y = relu(y + bias).
template <class T>
void finish_all(const ConvShape& s, const Vector<const T>& bias, bool relu, const Tensor<T>& y) {
  if (bias.data == nullptr && !relu) return;
  parallel_for(s.n * s.c, num_threads(), [&](int64_t plane, int) {
    const int64_t c = plane % s.c;
    for_each_cell(y, plane / s.c, c, in_extents(s), {0, s.cells()},
                  [&](T& cell, int64_t) { cell = finish(cell, bias, relu, c); });
  });
}

// What "auto" is to prefer where it can: the environment's wish.
Algorithm preferred_algorithm() {
  static const Algorithm preferred = [] {
    const std::string name = environment("FASTCONV_ALGORITHM");
    if (name.empty()) return Algorithm::automatic;
    try {
      return parse_algorithm(name);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("the environment variable FASTCONV_ALGORITHM: ") + error.what());
    }
  }();
  return preferred;
}

// Calls run(algorithm); implicit where workspace_limit is too small for what "auto" chose.
template <class Run>
void run_within(const ConvPlan& plan, const ConvOptions& options, Run run) {
  if (options.algorithm != Algorithm::automatic) return run(plan.algorithm);
  try {
    run(plan.algorithm);
  } catch (const WorkspaceExceeded& chosen) {
    try {
      run(Algorithm::implicit);
    } catch (const WorkspaceExceeded& other) {
      throw chosen.needed < other.needed ? chosen : other;
    }
  }
}

// A job that still plans while it runs.
class OldJob final : public Job {
 public:
  explicit OldJob(std::function<void()> body) : Job({"", ""}), body_(std::move(body)) {}
  void run(std::byte*) const override { body_(); }

 private:
  std::function<void()> body_;
};

template <class T>
void add_old(Algorithm algorithm, const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
  jobs.push_back(std::make_unique<OldJob>([call, limit, algorithm] {
    const auto& [pass, shape, a, b, finish, out] = call;
    if (pass == Pass::forward) {
      const auto fprop = algorithm == Algorithm::winograd ? winograd::fprop<T> : depthwise::fprop<T>;
      return fprop(shape, a, b, finish.bias, finish.relu, out, limit);
    }
    if (pass == Pass::weight) {
      const auto wgrad = algorithm == Algorithm::winograd ? winograd::wgrad<T> : depthwise::wgrad<T>;
      return wgrad(shape, a, b, out, limit);
    }
    if (algorithm == Algorithm::winograd) return winograd::dgrad(shape, a, b, finish.bias, finish.relu, out, limit);
    depthwise::dgrad(shape, a, b, out, limit);
    finish_all(shape, finish.bias, finish.relu, out);
  }));
}

template <class T>
void plan(Algorithm algorithm, const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
  if (algorithm == Algorithm::im2col) return im2col::algorithm<T>().plan(call, limit, jobs);
  if (algorithm == Algorithm::implicit) return implicit::algorithm<T>().plan(call, limit, jobs);
  if (algorithm == Algorithm::direct && !depthwise_serves(call.pass, call.shape))
    return direct::algorithm<T>().plan(call, limit, jobs);
  add_old(algorithm, call, limit, jobs);
}

// No sum has a term: the outputs are the bias, or zeros.
template <class T>
void fill_empty(const ConvCall<T>& call) {
  const ConvShape& s = call.shape;
  const auto value = [&](int64_t channel) { return call.finish(T(0), channel); };
  if (call.pass == Pass::forward) return fill(call.out, s.n, s.k, out_extents(s), value);
  if (call.pass == Pass::input) return fill(call.out, s.n, s.c, in_extents(s), value);
  fill(call.out, s.k, s.group_c(), filter_extents(s), value);
}

template <class T>
void compute(const ConvCall<T>& call, const ConvOptions& options) {
  const ConvPlan chosen = plan_conv(call.pass, call.shape, sizeof(T) == 4, options.algorithm);
  if (empty_sum(call.shape)) return fill_empty(call);
  run_within(chosen, options, [&](Algorithm algorithm) {
    Jobs jobs;
    plan(algorithm, call, options.workspace_limit, jobs);
    const Workspace memory(jobs.bytes());
    for (const auto& job : jobs) job->run(memory.at<std::byte>(0));
  });
}

// Of either kind: fewer leave vectors of the transforms empty, or do not pay for 5x5's, which spare less.
int64_t min_winograd_channels(const ConvShape& s) {
  return s.axis[1].filter == 3 ? std::max<int64_t>(8, vector_lanes<float>()) : 16;
}

// Fewer do not pay for transforming the filters; wide vectors multiply more outputs in the same time.
int64_t min_winograd_outputs(Pass pass) {
  if (pass == Pass::input) return 16;
  return pass == Pass::forward && vector_lanes<float>() >= 16 ? 64 : 48;
}

}  // namespace

// The ladder: the first rung that holds is taken; the last one always does. Figures: docs/kernels.md.
ConvPlan plan_conv(Pass pass, const ConvShape& shape, bool float32, Algorithm algorithm) {
  if (algorithm != Algorithm::automatic) {
    if (serves(algorithm, pass, shape)) return {algorithm, "asked for"};
    const char* needs = algorithm == Algorithm::winograd ? "3x3 or 5x5 filters, stride 1, dilation 1 and one group"
                        : algorithm == Algorithm::wgmma  ? "arrays on a GPU of compute capability 9.0"
                                                         : "filters that span no more than a million cells";
    throw std::invalid_argument(std::string("algorithm \"") + to_string(algorithm) + "\" cannot serve this: it needs " +
                                needs + "; \"auto\", \"im2col\" and \"implicit\" can");
  }
  const Algorithm preferred = preferred_algorithm();
  if (preferred != Algorithm::automatic && serves(preferred, pass, shape))
    return {preferred, "FASTCONV_ALGORITHM asks for it"};
  if (depthwise_serves(pass, shape)) return {Algorithm::direct, "one channel a group: no sum over channels"};
  if (float32 && winograd_allowed() && winograd::serves(shape) &&
      std::min(shape.c, shape.k) >= min_winograd_channels(shape) &&
      shape.n * shape.pixels() >= min_winograd_outputs(pass)) {
    return {Algorithm::winograd, "3x3 or 5x5 without stride, enough channels and outputs to pay for the transforms"};
  }
  if (pass == Pass::input && shape.group_c() <= 4)
    return {Algorithm::im2col, "few channels would leave the tile's rows empty"};
  if (pass == Pass::input && shape.taps() > 1 && shape.groups == 1 && implicit::few_pixels(shape))
    return {Algorithm::im2col, "few outputs: the filters are read where they lie"};
  if (pass == Pass::weight && shape.axis[2].out < 8)
    return {Algorithm::implicit, "rows of outputs too short to be products of their own"};
  if (pass == Pass::forward && implicit::few_pixels(shape))
    return {Algorithm::implicit, "few outputs: the filters are read where they lie"};
  if (pass != Pass::weight && shape.taps() > 1 &&
      (pass == Pass::input ? shape.group_c() : shape.group_k()) >= kManyOutputs)
    return {Algorithm::implicit, "many channels come out: they pay for packing the patches"};
  if (direct::serves(shape) && (shape.taps() > 1 || shape.group_c() < 16))
    return {Algorithm::direct, "patches overlap: one copy of the input serves them all"};
  return {Algorithm::implicit, "patches are gathered while packing, none is stored"};
}

template <class T>
void conv_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, Tensor<T> y,
                bool relu, const ConvOptions& options) {
  compute<T>({Pass::forward, shape, x, w, {bias, relu}, y}, options);
}

template <class T>
void conv_transpose_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias,
                          Tensor<T> y, bool relu, const ConvOptions& options) {
  compute<T>({Pass::input, shape, x, w, {bias, relu}, y}, options);
}

template <class T>
void conv_dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx,
                const ConvOptions& options) {
  compute<T>({Pass::input, shape, dy, w, {}, dx}, options);
}

template <class T>
void conv_wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                const ConvOptions& options) {
  compute<T>({Pass::weight, shape, dy, x, {}, dw}, options);
}

#define FASTCONV_INSTANTIATE(T)                                                                                      \
  template void conv_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, Tensor<T>, bool,     \
                           const ConvOptions&);                                                                      \
  template void conv_transpose_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, Tensor<T>, \
                                     bool, const ConvOptions&);                                                      \
  template void conv_dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);       \
  template void conv_wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu
