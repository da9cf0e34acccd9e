// Batch normalisation of x[N,C,D,H,W] over all axes but C (Ioffe and Szegedy, arXiv 1502.03167): one pass that reduces,
// one elementwise pass.
//
// Both kernels take rows with a lane for each channel. Where channels are contiguous (NHWC) a row is a pixel. Elsewhere
// the runs of one channel are folded into rows of one vector, all lanes the same channel; a run whose cells are not
// neighbours is gathered first.
#include <cmath>

#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/scratch.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "cpu/walk/parts.hpp"

namespace fastconv::cpu {
namespace {

using Shape = std::array<int64_t, 5>;

using namespace tuning::elementwise;

Extents extents_of(const Shape& s) { return {s[2], s[3], s[4]}; }
int64_t cells_per_channel(const Shape& s) { return s[0] * volume(extents_of(s)); }

int threads_for(const Shape& s) {
  return cpu::threads_for(static_cast<double>(s[1]) * static_cast<double>(cells_per_channel(s)), kSerialCells);
}

template <class T, class... Others>
bool channels_last(const Shape& s, const Tensor<T>& t, const Others&... others) {
  return s[1] > 1 && t.stride[1] == 1 && (... && (others.stride[1] == 1));
}

// How the planes of some tensors are walked: each as one run where it is contiguous in all of them, else row by row.
struct Runs {
  Extents extents;
  bool joined;

  template <class... Tensors>
  explicit Runs(const Shape& s, const Tensors&... tensors)
      : extents(extents_of(s)), joined((... && (spatial_stride(tensors, extents_of(s)) == 1))) {
    if (joined) extents = {1, 1, volume(extents)};
  }

  template <class T>
  int64_t step(const Tensor<T>& t) const {
    return joined ? 1 : t.stride[4];
  }

  // visit(z, p, q) for each run q, at most kGathered values of it at a time unless the planes are joined.
  template <class Visit>
  void for_each(Visit visit) const {
    for_each_run(extents, {0, volume(extents)}, [&](int64_t, int64_t z, int64_t p, Range q) {
      const Blocks blocks(q.size(), joined ? q.size() : kGathered);
      for (int64_t i = 0; i < blocks.count; ++i) visit(z, p, blocks[i]);
    });
  }
};

template <class T>
T* cell(const Tensor<T>& t, int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) {
  return t.at(n, c) + z * t.stride[2] + p * t.stride[3] + q * t.stride[4];
}

// `count` values `stride` apart, side by side: where they lie, or in the buffer.
template <class T>
const T* gathered(const T* from, int64_t stride, int64_t count, T* buffer) {
  if (from == nullptr || stride == 1) return from;
  for (int64_t i = 0; i < count; ++i) buffer[i] = from[i * stride];
  return buffer;
}

// sum[c] = sum of a - a0[c], product[c] = sum of (a - a0[c]) (b - b0[c]); by `parts` of the batch in scratch memory.
template <class T>
struct ChannelSums {
  const Shape& shape;
  const Tensor<const T>&a, &b;
  const T *a0, *b0;
  double *sum, *product;  // [kParts][C], zeros; the result is in the first C

  void operator()() const {
    if (channels_last(shape, a, b)) {
      sum_pixels();
    } else {
      sum_planes();
    }
    sum_parts(sum, kParts, shape[1], shape[1]);
    sum_parts(product, kParts, shape[1], shape[1]);
  }

 private:
  void sum_pixels() const {
    const int64_t rows = shape[0] * shape[2] * shape[3];
    const Blocks parts(rows, ceil_div(rows, kParts));
    parallel_for(parts.count, threads_for(shape), [&](int64_t part, int) noexcept {
      double *s = sum + part * shape[1], *p = product + part * shape[1];
      for (int64_t row = parts[part].begin; row < parts[part].end; ++row) {
        const int64_t h = row % shape[3], d = row / shape[3] % shape[2], n = row / shape[3] / shape[2];
        batch_norm_kernels<T>().sums(shape[4], shape[1], {cell(a, n, 0, d, h, 0), a.stride[4]},
                                     {cell(b, n, 0, d, h, 0), b.stride[4]}, a0, b0, s, p);
      }
    });
  }

  void sum_planes() const {
    const Runs runs(shape, a, b);
    const Blocks parts(shape[0], ceil_div(shape[0], kParts));
    const Blocks channels(shape[1], kTaskCells / std::max<int64_t>(1, volume(runs.extents)));
    parallel_for(parts.count * channels.count, threads_for(shape), [&](int64_t task, int) noexcept {
      const int64_t part = task % parts.count;
      const Range block = channels[task / parts.count];
      for (int64_t n = parts[part].begin; n < parts[part].end; ++n) {
        for (int64_t c = block.begin; c < block.end; ++c) add_plane(runs, n, c, part * shape[1] + c);
      }
    });
  }

  void add_plane(const Runs& runs, int64_t n, int64_t c, int64_t at) const {
    const int64_t lanes = vector_lanes<T>();
    T shift_a[kMaxLanes], shift_b[kMaxLanes], buffer_a[kGathered], buffer_b[kGathered];
    std::fill_n(shift_a, lanes, a0[c]);
    std::fill_n(shift_b, lanes, b0[c]);
    double s[kMaxLanes] = {}, p[kMaxLanes] = {};
    runs.for_each([&](int64_t z, int64_t h, Range q) {
      const T* from_a = gathered(cell(a, n, c, z, h, q.begin), runs.step(a), q.size(), buffer_a);
      const T* from_b = gathered(cell(b, n, c, z, h, q.begin), runs.step(b), q.size(), buffer_b);
      const int64_t whole = q.size() / lanes * lanes;
      batch_norm_kernels<T>().sums(whole / lanes, lanes, {from_a, lanes}, {from_b, lanes}, shift_a, shift_b, s, p);
      batch_norm_kernels<T>().sums(1, q.size() - whole, {from_a + whole, 0}, {from_b + whole, 0}, shift_a, shift_b, s,
                                   p);
    });
    for (int64_t i = 0; i < lanes; ++i) {
      sum[at] += s[i];
      product[at] += p[i];
    }
  }
};

// y = scale_a a + scale_b (b - shift_b) + bias, then max(y, 0) if relu; a.data may be null.
template <class T>
struct ChannelMap {
  const Shape& shape;
  const Tensor<const T>&a, &b;
  const ChannelAffine<T>& factors;
  bool relu;
  const Tensor<T>& y;

  void operator()() const {
    const bool pixels = a.data == nullptr ? channels_last(shape, b, y) : channels_last(shape, a, b, y);
    return pixels ? map_pixels() : map_planes();
  }

 private:
  const T* a_cell(int64_t n, int64_t c, int64_t z, int64_t p, int64_t q) const {
    return a.data == nullptr ? nullptr : cell(a, n, c, z, p, q);
  }

  void map_pixels() const {
    const int64_t rows = shape[0] * shape[2] * shape[3];
    const Blocks blocks(rows, kTaskCells / std::max<int64_t>(1, shape[1] * shape[4]));
    parallel_for(blocks.count, threads_for(shape), [&](int64_t task, int) noexcept {
      for (int64_t row = blocks[task].begin; row < blocks[task].end; ++row) {
        const int64_t h = row % shape[3], d = row / shape[3] % shape[2], n = row / shape[3] / shape[2];
        batch_norm_kernels<T>().affine(shape[4], shape[1], {a_cell(n, 0, d, h, 0), a.stride[4]},
                                       {cell(b, n, 0, d, h, 0), b.stride[4]}, factors, relu,
                                       {cell(y, n, 0, d, h, 0), y.stride[4]});
      }
    });
  }

  void map_planes() const {
    const Runs runs = a.data == nullptr ? Runs(shape, b, y) : Runs(shape, a, b, y);
    const Blocks blocks(shape[0] * shape[1], kTaskCells / std::max<int64_t>(1, volume(runs.extents)));
    parallel_for(blocks.count, threads_for(shape), [&](int64_t task, int) noexcept {
      for (int64_t plane = blocks[task].begin; plane < blocks[task].end; ++plane) {
        map_plane(runs, plane / shape[1], plane % shape[1]);
      }
    });
  }

  void map_plane(const Runs& runs, int64_t n, int64_t c) const {
    const int64_t lanes = vector_lanes<T>();
    T scale_a[kMaxLanes], scale_b[kMaxLanes], shift_b[kMaxLanes], bias[kMaxLanes];
    if (a.data != nullptr) std::fill_n(scale_a, lanes, factors.scale_a[c]);
    std::fill_n(scale_b, lanes, factors.scale_b[c]);
    std::fill_n(shift_b, lanes, factors.shift_b[c]);
    std::fill_n(bias, lanes, factors.bias[c]);
    const ChannelAffine<T> f{scale_a, scale_b, shift_b, bias};
    T buffer_a[kGathered], buffer_b[kGathered], buffer_y[kGathered];
    runs.for_each([&](int64_t z, int64_t h, Range q) {
      const T* from_a = gathered(a_cell(n, c, z, h, q.begin), runs.step(a), q.size(), buffer_a);
      const T* from_b = gathered(cell(b, n, c, z, h, q.begin), runs.step(b), q.size(), buffer_b);
      T* to = cell(y, n, c, z, h, q.begin);
      T* out = runs.step(y) == 1 ? to : buffer_y;
      const int64_t whole = q.size() / lanes * lanes;
      batch_norm_kernels<T>().affine(whole / lanes, lanes, {from_a, lanes}, {from_b, lanes}, f, relu, {out, lanes});
      const T* rest_a = from_a == nullptr ? nullptr : from_a + whole;
      batch_norm_kernels<T>().affine(1, q.size() - whole, {rest_a, 0}, {from_b + whole, 0}, f, relu, {out + whole, 0});
      if (out == to) return;
      for (int64_t i = 0; i < q.size(); ++i) to[i * runs.step(y)] = out[i];
    });
  }
};

}  // namespace

// Sums of x - x0 rather than of x: where the mean is far from zero, the difference of two large squares would lose the
// variance. A value of the channel itself is close enough: its distance from the mean is part of the variance.
template <class T>
void batch_moments(const Shape& shape, Tensor<const T> x, T* mean, T* variance) {
  const int64_t channels = shape[1];
  Scratch scratch;
  const auto sums = scratch.shared<double>(kParts, channels), products = scratch.shared<double>(kParts, channels);
  const auto shifts = scratch.shared<T>(channels);
  const Workspace memory(scratch.bytes());
  const Arrays at(scratch, memory.at<std::byte>(0));
  double *sum = at(sums), *product = at(products);
  T* shift = at(shifts);
  std::fill_n(sum, kParts * channels, 0.0);
  std::fill_n(product, kParts * channels, 0.0);
  for (int64_t c = 0; c < channels; ++c) {
    const T first = cells_per_channel(shape) > 0 ? *x.at(0, c) : T(0);
    shift[c] = std::isfinite(first) ? first : T(0);
  }
  ChannelSums<T>{shape, x, x, shift, shift, sum, product}();
  const double count = static_cast<double>(cells_per_channel(shape));
  for (int64_t c = 0; c < channels; ++c) {
    const double from_shift = sum[c] / count;
    mean[c] = static_cast<T>(static_cast<double>(shift[c]) + from_shift);
    const double v = product[c] / count - from_shift * from_shift;
    variance[c] = static_cast<T>(v < 0 ? 0 : v);
  }
}

template <class T>
void batch_norm_fprop(const Shape& shape, Tensor<const T> x, const T* mean, const T* scale, const T* bias, Tensor<T> y,
                      bool relu) {
  ChannelMap<T>{shape, {}, x, {nullptr, scale, mean, bias}, relu, y}();
}

// With xn = (x - mean) rstd: dx = weight rstd (dy - mean of dy - xn * mean of dy xn).
template <class T>
void batch_norm_grad(const Shape& shape, Tensor<const T> dy, Tensor<const T> x, const T* mean, const T* rstd,
                     const T* weight, Tensor<T> dx, T* dweight, T* dbias) {
  const int64_t channels = shape[1];
  Scratch scratch;
  const auto sums = scratch.shared<double>(kParts, channels), products = scratch.shared<double>(kParts, channels);
  const auto scales_dy = scratch.shared<T>(channels), scales_x = scratch.shared<T>(channels),
             biases = scratch.shared<T>(channels);
  const Workspace memory(scratch.bytes());
  const Arrays at(scratch, memory.at<std::byte>(0));
  double *sum = at(sums), *product = at(products);
  T *scale_dy = at(scales_dy), *scale_x = at(scales_x), *bias = at(biases);
  std::fill_n(sum, kParts * channels, 0.0);
  std::fill_n(product, kParts * channels, 0.0);
  T* zero = bias;  // until the sums are there
  std::fill_n(zero, channels, T(0));
  ChannelSums<T>{shape, dy, x, zero, mean, sum, product}();
  const double count = static_cast<double>(cells_per_channel(shape));
  for (int64_t c = 0; c < channels; ++c) {
    const double r = static_cast<double>(rstd[c]), factor = static_cast<double>(weight[c]) * r;
    dweight[c] = static_cast<T>(product[c] * r);
    dbias[c] = static_cast<T>(sum[c]);
    scale_dy[c] = static_cast<T>(factor);
    scale_x[c] = static_cast<T>(-factor * r * r * product[c] / count);
    bias[c] = static_cast<T>(-factor * sum[c] / count);
  }
  ChannelMap<T>{shape, dy, x, {scale_dy, scale_x, mean, bias}, false, dx}();
}

template void batch_moments(const Shape&, Tensor<const float>, float*, float*);
template void batch_moments(const Shape&, Tensor<const double>, double*, double*);
template void batch_norm_fprop(const Shape&, Tensor<const float>, const float*, const float*, const float*,
                               Tensor<float>, bool);
template void batch_norm_fprop(const Shape&, Tensor<const double>, const double*, const double*, const double*,
                               Tensor<double>, bool);
template void batch_norm_grad(const Shape&, Tensor<const float>, Tensor<const float>, const float*, const float*,
                              const float*, Tensor<float>, float*, float*);
template void batch_norm_grad(const Shape&, Tensor<const double>, Tensor<const double>, const double*, const double*,
                              const double*, Tensor<double>, double*, double*);

}  // namespace fastconv::cpu
