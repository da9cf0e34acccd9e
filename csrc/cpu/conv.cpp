// Which algorithm serves a convolution, and why; a call is planned by it, then runs.
#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>

#include "conv.hpp"
#include "cpu/depthwise/depthwise.hpp"
#include "cpu/direct/direct.hpp"
#include "cpu/im2col/im2col.hpp"
#include "cpu/implicit/implicit.hpp"
#include "cpu/runtime/environment.hpp"
#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/call.hpp"
#include "cpu/walk/groups.hpp"
#include "cpu/winograd/winograd.hpp"

namespace fastconv::cpu {
namespace {

// All algorithms. Of two by one name, the first that serves a call is taken.
template <class T>
const std::array<const ConvAlgorithm<T>*, 5>& algorithms() {
  static const std::array<const ConvAlgorithm<T>*, 5> all{&winograd::algorithm<T>(), &depthwise::algorithm<T>(),
                                                          &direct::algorithm<T>(), &implicit::algorithm<T>(),
                                                          &im2col::algorithm<T>()};
  return all;
}

// The algorithm of that name which serves a pass; null if none does.
template <class T>
const ConvAlgorithm<T>* find(Algorithm name, Pass pass, const ConvShape& s) {
  for (const ConvAlgorithm<T>* algorithm : algorithms<T>()) {
    if (algorithm->name == name && algorithm->serves(pass, s)) return algorithm;
  }
  return nullptr;
}
bool serves(Algorithm name, Pass pass, const ConvShape& s) { return find<float>(name, pass, s) != nullptr; }

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

// Enough channels and outputs to pay for the transforms.
bool winograd_pays(Pass pass, const ConvShape& s) {
  using namespace tuning::conv;
  const bool wide = vector_lanes<float>() >= 16;
  const int64_t channels =
      s.axis[1].filter > 3 ? kLargeWinogradChannels : std::max<int64_t>(kMinWinogradChannels, vector_lanes<float>());
  const int64_t outputs = pass == Pass::input             ? kMinWinogradInputs
                          : pass == Pass::forward && wide ? kWideWinogradOutputs
                                                          : kMinWinogradOutputs;
  return std::min(s.c, s.k) >= channels && s.n * s.pixels() >= outputs;
}

struct Choice {
  Algorithm algorithm;
  const char* reason;
};

// The ladder: the first rung that holds is taken; the last one of each pass always does. Figures: docs/measured.
Choice choose_forward(const ConvShape& s) {
  if (implicit::few_pixels(s)) return {Algorithm::implicit, "few outputs: the filters are read where they lie"};
  if (s.taps() > 1 && s.group_k() >= tuning::conv::kManyOutputs)
    return {Algorithm::implicit, "many channels come out: they pay for packing the patches"};
  if (direct::serves(s) && (s.taps() > 1 || s.group_c() < tuning::conv::kFewChannels))
    return {Algorithm::direct, "patches overlap: one copy of the input serves them all"};
  return {Algorithm::implicit, "patches are gathered while packing, none is stored"};
}

Choice choose_input(const ConvShape& s) {
  if (s.group_c() <= tuning::conv::kFewInputs)
    return {Algorithm::im2col, "few channels would leave the tile's rows empty"};
  if (s.taps() > 1 && s.groups == 1 && implicit::few_pixels(s))
    return {Algorithm::im2col, "few outputs: the filters are read where they lie"};
  if (s.taps() > 1 && s.group_c() >= tuning::conv::kManyOutputs)
    return {Algorithm::implicit, "many channels come out: they pay for packing the patches"};
  if (direct::serves(s) && (s.taps() > 1 || s.group_c() < tuning::conv::kFewChannels))
    return {Algorithm::direct, "patches overlap: one copy of the gradient serves them all"};
  return {Algorithm::implicit, "patches are gathered while packing, none is stored"};
}

Choice choose_weight(const ConvShape& s) {
  if (s.axis[2].out < tuning::conv::kShortRow)
    return {Algorithm::implicit, "rows of outputs too short to be products of their own"};
  if (direct::serves(s) && (s.taps() > 1 || s.group_c() < tuning::conv::kFewChannels))
    return {Algorithm::direct, "patches overlap: one copy of the input serves them all"};
  return {Algorithm::implicit, "patches are gathered while packing, none is stored"};
}

Choice choose(Pass pass, const ConvShape& s, bool float32) {
  const Algorithm preferred = preferred_algorithm();
  if (preferred != Algorithm::automatic && serves(preferred, pass, s))
    return {preferred, "FASTCONV_ALGORITHM asks for it"};
  if (depthwise::serves(pass, s)) return {Algorithm::direct, "one channel a group: no sum over channels"};
  if (float32 && winograd_allowed() && serves(Algorithm::winograd, pass, s) && winograd_pays(pass, s))
    return {Algorithm::winograd, "3x3 or 5x5 without stride, enough channels and outputs to pay for the transforms"};
  return pass == Pass::forward ? choose_forward(s) : pass == Pass::input ? choose_input(s) : choose_weight(s);
}

// std::invalid_argument if the algorithm is named and cannot serve the shape.
Choice choose_or_refuse(Pass pass, const ConvShape& s, bool float32, Algorithm algorithm) {
  if (algorithm == Algorithm::automatic) return choose(pass, s, float32);
  if (serves(algorithm, pass, s)) return {algorithm, "asked for"};
  const char* needs = algorithm == Algorithm::winograd ? "3x3 or 5x5 filters, stride 1, dilation 1 and one group"
                      : algorithm == Algorithm::wgmma  ? "arrays on a GPU of compute capability 9.0"
                                                       : "filters that span no more than a million cells";
  throw std::invalid_argument(std::string("algorithm \"") + to_string(algorithm) + "\" cannot serve this: it needs " +
                              needs + "; \"auto\", \"im2col\" and \"implicit\" can");
}

// Adds the jobs of a call and returns the algorithm they are of: implicit where the limit is too small for auto's
// choice.
template <class T>
Choice plan(const ConvCall<T>& call, const ConvOptions& options, Jobs& jobs) {
  const ConvShape& s = call.shape;
  const std::size_t limit = options.workspace_limit, before = jobs.size();
  const Choice chosen = choose_or_refuse(call.pass, s, sizeof(T) == 4, options.algorithm);
  if (s.n == 0 || s.k == 0 || s.group_c() == 0) {
    jobs.push_back(std::make_unique<FillJob<T>>(kNoTerms, call));
    return chosen;
  }
  try {
    find<T>(chosen.algorithm, call.pass, s)->plan(call, limit, jobs);
    return chosen;
  } catch (const WorkspaceExceeded& first) {
    if (options.algorithm != Algorithm::automatic) throw;
    jobs.keep(before);
    try {
      implicit::algorithm<T>().plan(call, limit, jobs);
    } catch (const WorkspaceExceeded& second) {
      throw first.needed < second.needed ? first : second;
    }
  }
  return {Algorithm::implicit, "workspace_limit is too small for what auto takes without one"};
}

// Plans all calls, and takes their memory, before the first of them writes; then nothing can fail. `last` may: it is
// called in between, and writes nothing where it throws.
template <class T, class Last>
void compute(std::initializer_list<ConvCall<T>> calls, const ConvOptions& options, Last last) {
  Jobs jobs;
  for (const ConvCall<T>& call : calls) {
    if (call.out.data != nullptr) plan(call, options, jobs);
  }
  const Workspace memory(jobs.bytes());
  last();
  for (const auto& job : jobs) job->run(memory.at<std::byte>(0));
}
template <class T>
void compute(const ConvCall<T>& call, const ConvOptions& options) {
  compute<T>({call}, options, [] {});
}

template <class T>
ConvPlan describe(Pass pass, const ConvShape& shape, const ConvStrides& strides, const ConvOptions& options) {
  static T cell;  // data of no call, never read
  Jobs jobs(Jobs::Purpose::description);
  const ConvCall<T> call{pass, shape, {&cell, strides.a}, {&cell, strides.b}, {}, {&cell, strides.out}};
  const Choice chosen = plan(call, options, jobs);
  ConvPlan result{chosen.algorithm, chosen.reason, {}, jobs.bytes()};
  for (const auto& job : jobs) {
    const auto& list = result.variants;
    if (std::find(list.begin(), list.end(), job->variant()) == list.end()) result.variants.push_back(job->variant());
  }
  return result;
}

}  // namespace

ConvPlan plan_conv(Pass pass, const ConvShape& shape, const ConvStrides& strides, bool float32,
                   const ConvOptions& options) {
  return float32 ? describe<float>(pass, shape, strides, options) : describe<double>(pass, shape, strides, options);
}

void check_environment() {
  preferred_algorithm();
  winograd_allowed();
}

std::vector<std::pair<Algorithm, Variant>> conv_variants() {
  std::vector<std::pair<Algorithm, Variant>> all;
  for (const ConvAlgorithm<float>* algorithm : algorithms<float>()) {
    for (const Variant& variant : algorithm->variants) all.emplace_back(algorithm->name, variant);
  }
  return all;
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

template <class T>
void conv_grad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<const T> w, Tensor<T> dx,
               Tensor<T> dw, Vector<T> db, const ConvOptions& options) {
  compute<T>({{Pass::input, shape, dy, w, {}, dx}, {Pass::weight, shape, dy, x, {}, dw}}, options, [&] {
    if (db.data != nullptr) conv_bgrad(shape.y_extents(), dy, db);
  });
}

template <class T>
void conv_transpose_grad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<const T> w, Tensor<T> dx,
                         Tensor<T> dw, Vector<T> db, const ConvOptions& options) {
  compute<T>({{Pass::forward, shape, dy, w, {}, dx}, {Pass::weight, shape, x, dy, {}, dw}}, options, [&] {
    if (db.data != nullptr) conv_bgrad(shape.x_extents(), dy, db);
  });
}

#define FASTCONV_INSTANTIATE(T)                                                                                      \
  template void conv_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, Tensor<T>, bool,     \
                           const ConvOptions&);                                                                      \
  template void conv_transpose_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, Tensor<T>, \
                                     bool, const ConvOptions&);                                                      \
  template void conv_dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);       \
  template void conv_wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);       \
  template void conv_grad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<const T>, Tensor<T>, Tensor<T>, \
                          Vector<T>, const ConvOptions&);                                                            \
  template void conv_transpose_grad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<const T>, Tensor<T>,  \
                                    Tensor<T>, Vector<T>, const ConvOptions&);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu
