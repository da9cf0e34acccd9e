// Which algorithm serves a convolution, and the calls that hand it over.
#include <algorithm>

#include "im2col.hpp"
#include "patches.hpp"

namespace fastconv::cpu {
namespace {

// Sets a whole tensor [rows, channels, extents], one channel after another: value(channel).
template <class T, class Value>
void fill(const Tensor<T>& t, int64_t rows, int64_t channels, const Extents& extents, Value value) {
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      for_each_cell(t, n, c, extents, {0, volume(extents)}, [&](T& cell, int64_t) { cell = value(c); });
    }
  }
}

bool empty_sum(const ConvShape& s) { return s.n == 0 || s.k == 0 || s.group_c() == 0; }

}  // namespace

// The ladder: the first rung that holds is taken; the last one always does.
ConvPlan plan_conv(Pass pass, const ConvShape& shape, const ConvOptions& options, std::size_t itemsize) {
  const std::size_t bytes = empty_sum(shape) ? 0 : im2col::workspace(pass, shape, itemsize);
  if (options.algorithm == Algorithm::im2col) return {Algorithm::im2col, "asked for", bytes};
  return {Algorithm::im2col, "serves every geometry", bytes};
}

template <class T>
void conv_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu,
                Tensor<T> y, const ConvOptions& options) {
  if (empty_sum(shape)) {
    return fill(y, shape.n, shape.k, out_extents(shape), [&](int64_t k) {
      const T value = bias.data != nullptr ? bias[k] : T(0);
      return relu && value < 0 ? T(0) : value;
    });
  }
  im2col::fprop(shape, x, w, bias, relu, y, options.workspace_limit);
}

template <class T>
void conv_dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx,
                const ConvOptions& options) {
  if (empty_sum(shape)) return fill(dx, shape.n, shape.c, in_extents(shape), [](int64_t) { return T(0); });
  im2col::dgrad(shape, dy, w, dx, options.workspace_limit);
}

template <class T>
void conv_wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                const ConvOptions& options) {
  if (empty_sum(shape)) return fill(dw, shape.k, shape.group_c(), filter_extents(shape), [](int64_t) { return T(0); });
  im2col::wgrad(shape, dy, x, dw, options.workspace_limit);
}

#define FASTCONV_INSTANTIATE(T)                                                                                  \
  template void conv_fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                           const ConvOptions&);                                                                  \
  template void conv_dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);   \
  template void conv_wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, const ConvOptions&);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu
