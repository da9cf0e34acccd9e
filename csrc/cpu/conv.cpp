// Which algorithm serves a convolution, and the calls that hand it over.
#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "depthwise.hpp"
#include "im2col.hpp"
#include "implicit.hpp"
#include "patches.hpp"
#include "thread_pool.hpp"
#include "winograd.hpp"

namespace fastconv::cpu {
namespace {

bool empty_sum(const ConvShape& s) { return s.n == 0 || s.k == 0 || s.group_c() == 0; }

// Whether the algorithm can compute this pass.
bool serves(Algorithm algorithm, Pass pass, const ConvShape& s) {
  if (algorithm == Algorithm::winograd) return winograd::serves(s);
  if (algorithm != Algorithm::direct) return true;
  return s.group_c() == 1 && (pass != Pass::input || s.group_k() == 1);
}

// What "auto" is to prefer where it can: the environment's wish.
Algorithm preferred_algorithm() {
  static const Algorithm preferred = [] {
    const char* name = std::getenv("FASTCONV_ALGORITHM");
    if (name == nullptr || *name == '\0') return Algorithm::automatic;
    try {
      return parse_algorithm(name);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("the environment variable FASTCONV_ALGORITHM: ") + error.what());
    }
  }();
  return preferred;
}

bool winograd_allowed() {
  static const bool allowed = [] {
    const char* value = std::getenv("FASTCONV_WINOGRAD");
    return value == nullptr || std::string(value) != "0";
  }();
  return allowed;
}

}  // namespace

// The ladder: the first rung that holds is taken; the last one always does. Figures: docs/kernels.md.
ConvPlan plan_conv(Pass pass, const ConvShape& shape, bool float32, Algorithm algorithm) {
  if (algorithm != Algorithm::automatic) {
    if (serves(algorithm, pass, shape)) return {algorithm, "asked for"};
    throw std::invalid_argument(std::string("algorithm \"") + to_string(algorithm) + "\" cannot serve this: " +
                                (algorithm == Algorithm::winograd
                                     ? "it needs 3x3 filters, stride 1, dilation 1 and one group"
                                     : "it needs one channel a group, for the input gradient one filter too") +
                                "; \"auto\", \"im2col\" and \"implicit\" can");
  }
  const Algorithm preferred = preferred_algorithm();
  if (preferred != Algorithm::automatic && serves(preferred, pass, shape))
    return {preferred, "FASTCONV_ALGORITHM asks for it"};
  if (serves(Algorithm::direct, pass, shape) && shape.groups > 1)
    return {Algorithm::direct, "one channel a group: no sum over channels"};
  if (float32 && winograd_allowed() && serves(Algorithm::winograd, pass, shape) && std::min(shape.c, shape.k) >= 16 &&
      shape.n * shape.pixels() >= 256) {
    return {Algorithm::winograd, "3x3 without stride, enough channels and outputs to pay for the transforms"};
  }
  if (shape.group_c() * shape.taps() < 16) return {Algorithm::im2col, "patches are too short to pack"};
  if (pass == Pass::input && shape.group_c() <= 4)
    return {Algorithm::im2col, "few channels would leave the tile's rows empty"};
  return {Algorithm::implicit, "patches are gathered while packing, none is stored"};
}

template <class T>
void conv_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu,
                Tensor<T> y, const ConvOptions& options) {
  const Algorithm algorithm = plan_conv(Pass::forward, shape, sizeof(T) == 4, options.algorithm).algorithm;
  if (empty_sum(shape)) {
    return fill(y, shape.n, shape.k, out_extents(shape), [&](int64_t k) { return finish(T(0), bias, relu, k); });
  }
  if (algorithm == Algorithm::direct) return depthwise::fprop(shape, x, w, bias, relu, y, options.workspace_limit);
  if (algorithm == Algorithm::implicit) return implicit::fprop(shape, x, w, bias, relu, y, options.workspace_limit);
  if (algorithm == Algorithm::winograd) return winograd::fprop(shape, x, w, bias, relu, y, options.workspace_limit);
  im2col::fprop(shape, x, w, bias, relu, y, options.workspace_limit);
}

template <class T>
void conv_transpose_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu,
                          Tensor<T> y, const ConvOptions& options) {
  const Algorithm algorithm = plan_conv(Pass::input, shape, sizeof(T) == 4, options.algorithm).algorithm;
  if (empty_sum(shape)) {
    return fill(y, shape.n, shape.c, in_extents(shape), [&](int64_t c) { return finish(T(0), bias, relu, c); });
  }
  if (algorithm == Algorithm::implicit) return implicit::dgrad(shape, x, w, bias, relu, y, options.workspace_limit);
  if (algorithm == Algorithm::winograd) return winograd::dgrad(shape, x, w, bias, relu, y, options.workspace_limit);
  if (algorithm == Algorithm::direct) {
    depthwise::dgrad(shape, x, w, y, options.workspace_limit);
  } else {
    im2col::dgrad(shape, x, w, y, options.workspace_limit);
  }
  if (bias.data == nullptr && !relu) return;
  parallel_for(shape.n * shape.c, num_threads(), [&](int64_t plane, int) {
    const int64_t c = plane % shape.c;
    for_each_cell(y, plane / shape.c, c, in_extents(shape), {0, shape.cells()},
                  [&](T& cell, int64_t) { cell = finish(cell, bias, relu, c); });
  });
}

template <class T>
void conv_dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx,
                const ConvOptions& options) {
  conv_transpose_fprop(shape, dy, w, {}, false, dx, options);
}

template <class T>
void conv_wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                const ConvOptions& options) {
  const Algorithm algorithm = plan_conv(Pass::weight, shape, sizeof(T) == 4, options.algorithm).algorithm;
  if (empty_sum(shape)) return fill(dw, shape.k, shape.group_c(), filter_extents(shape), [](int64_t) { return T(0); });
  if (algorithm == Algorithm::direct) return depthwise::wgrad(shape, dy, x, dw, options.workspace_limit);
  if (algorithm == Algorithm::winograd) return winograd::wgrad(shape, dy, x, dw, options.workspace_limit);
  if (algorithm == Algorithm::implicit) return implicit::wgrad(shape, dy, x, dw, options.workspace_limit);
  im2col::wgrad(shape, dy, x, dw, options.workspace_limit);
}

#define FASTCONV_INSTANTIATE(T)                                                                                  \
  template void conv_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                           const ConvOptions&);                                                                  \
  template void conv_transpose_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool,  \
                                     Tensor<T>, const ConvOptions&);                                             \
  template void conv_dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);   \
  template void conv_wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu
