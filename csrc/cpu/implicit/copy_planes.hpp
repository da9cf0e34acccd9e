// Copies between planes and cells that lie apart in them.
#pragma once

#include "cpu/gemm/gemm.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/walk/call.hpp"
#include "cpu/walk/extents.hpp"

namespace fastconv::cpu::implicit {

// to[n][channel][e] = from[n][channel][e] for the outputs of a convolution; columns are any step apart in `from`, 1 or
// 2 in `to`.
template <class T>
class CopyPlanesJob final : public Job {
 public:
  CopyPlanesJob(const Variant& variant, const ConvShape& s, int64_t channels, const Tensor<const T>& from,
                const Tensor<T>& to)
      : Job(variant),
        n_(s.n),
        channels_(channels),
        extents_(out_extents(s)),
        from_(from),
        to_(to),
        threads_(threads_for(s.flops())) {}

  void run(std::byte*) const noexcept override {
    parallel_for(n_ * channels_, threads_, [&](int64_t i, int) noexcept {
      const int64_t n = i / channels_, c = i % channels_;
      for (int64_t z = 0; z < extents_[0]; ++z) {
        layout_kernels<T>().copy_rows(to_.at(n, c) + z * to_.stride[2], to_.stride[3], to_.stride[4],
                                      from_.at(n, c) + z * from_.stride[2], from_.stride[3], from_.stride[4],
                                      extents_[1], extents_[2]);
      }
    });
  }

 private:
  int64_t n_, channels_;
  Extents extents_;
  Tensor<const T> from_;
  Tensor<T> to_;
  int threads_;
};

// Dense planes that lie between two jobs, and what they take of the limit.
template <class T>
struct Planes {
  Tensor<T> tensor;
  std::size_t bytes;

  enum Use : std::size_t { kInputs, kOutputs };
  Planes(Use use, int64_t n, int64_t channels, const Extents& e, std::size_t limit, Jobs& jobs)
      : bytes(array_bytes(n * channels, volume(e), sizeof(T))) {
    if (bytes > limit) throw WorkspaceExceeded(limit, bytes, "implicit");
    tensor = {reinterpret_cast<T*>(jobs.between(use, bytes)), {channels * volume(e), volume(e), e[1] * e[2], e[2], 1}};
  }
  Tensor<const T> readable() const { return {tensor.data, tensor.stride}; }
};

// The cells of x that filters of one cell see, as outputs lie.
template <class T>
Tensor<const T> seen_cells(const ConvShape& s, Tensor<const T> x) {
  for (std::size_t i = 0; i < 3; ++i) {
    x.data += s.axis[i].input(0, 0) * x.stride[i + 2];
    x.stride[i + 2] *= s.axis[i].stride;
  }
  return x;
}

// The pointwise convolution of these cells.
inline ConvShape thinned(ConvShape s) {
  for (Axis& a : s.axis) a = {.in = a.out, .out = a.out};
  return s;
}

}  // namespace fastconv::cpu::implicit
