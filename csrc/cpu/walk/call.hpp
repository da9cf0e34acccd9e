// A pass of a convolution as a value, and the convolutions of one group that it is made of.
#pragma once

#include <span>

#include "cpu/runtime/job.hpp"
#include "ops.hpp"

namespace fastconv::cpu {

// What is done to an output after its sum: its channel's bias is added, then what is below zero becomes zero.
template <class T>
struct Finish {
  Vector<const T> bias{};  // may be absent
  bool relu = false;

  bool needed() const { return bias.data != nullptr || relu; }
  T bias_of(int64_t channel) const { return bias.data != nullptr ? bias[channel] : T(0); }
  T operator()(T value, int64_t channel) const {
    if (bias.data != nullptr) value += bias[channel];
    return relu && value < 0 ? T(0) : value;  // NaN stays NaN
  }
  // For the channels from this one on.
  Finish from(int64_t channel) const { return {{bias.data != nullptr ? &bias[channel] : nullptr, bias.stride}, relu}; }
};

//   pass      a    b   out
//   forward   x    w   y
//   input     dy   w   dx    with a finish, a transposed convolution
//   weight    dy   x   dw    without a finish
template <class T>
struct ConvCall {
  Pass pass;
  const ConvShape& shape;
  Tensor<const T> a, b;
  Finish<T> finish;
  Tensor<T> out;
};

// y[N,K,...] = finish(conv(x[N,C,...], w[K,C,...])) of one group.
template <class T>
struct Correlation {
  ConvShape shape;
  Tensor<const T> x, w;
  Finish<T> finish;
  Tensor<T> y;
};

// dw[K,C,...], the weight gradient of one group.
template <class T>
struct Reduction {
  ConvShape shape;
  Tensor<const T> dy, x;
  Tensor<T> dw;
};

// A way to compute all three passes. plan() adds the jobs of a call to a list; it throws WorkspaceExceeded where their
// scratch memory would pass the limit.
template <class T>
struct ConvAlgorithm {
  Algorithm name;
  std::span<const Variant> variants;  // all that its jobs may be
  bool (*serves)(Pass, const ConvShape&);
  void (*plan)(const ConvCall<T>& call, std::size_t workspace_limit, Jobs& jobs);
};

}  // namespace fastconv::cpu
