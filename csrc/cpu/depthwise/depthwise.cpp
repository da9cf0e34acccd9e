// y[n,k,z,p,q] sums w[k,0,t,r,s] x[n,k/(K/groups),...] over the taps that do not lie in the padding.
//
// Channels last, lanes are channels, and the outputs are cut into rectangles that read the same taps: for a padded
// 3x3 filter the inside, four edges and four corners. In planes lanes are outputs of a row; 3x3 filters have kernels
// that read each row of x once for all the outputs it is part of, any other is computed a row of outputs at a time.
#include "depthwise.hpp"

#include <algorithm>
#include <numeric>

#include "cpu/runtime/thread_pool.hpp"
#include "cpu/runtime/workspace.hpp"
#include "cpu/walk/phases.hpp"
#include "cpu/walk/windows.hpp"
#include "pixels.hpp"

namespace fastconv::cpu::depthwise {
namespace {

constexpr int64_t kVectors = 32;  // of channels that are computed together
constexpr int64_t kBandRows = 9;
constexpr int64_t kMinTasks = 4;
constexpr int64_t kSmallPlane = 16 * 16;  // cells
constexpr int64_t kTaskCells = 1 << 12;   // of planes that are computed together

int threads_for(const ConvShape& s) { return cpu::threads_for(s.flops(), kSerialScalarFlops); }

template <class T, class U>
bool channels_last(const ConvShape& s, const Tensor<T>& x, const Tensor<U>& y) {
  return s.k > 1 && s.group_k() == 1 && x.stride[1] == 1 && y.stride[1] == 1;
}

template <class T>
void pixels(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const int64_t lanes = vector_lanes<T>(), depth = s.axis[0].out, vector_weights = (s.taps() + 1) * lanes;
  const Blocks blocks(ceil_div(s.k, lanes), kVectors), bands(s.axis[1].out, kBandRows);
  const std::size_t bytes = array_bytes(blocks.extent, vector_weights, sizeof(T));
  const int threads = threads_within(workspace_limit, bytes, 0, threads_for(s), "direct");
  const Workspace memory(bytes);
  T* weights = memory.at<T>(0);
  pack_pixel_weights(s, w, bias, weights);
  const Pixels<T> kernels(s, x.stride, y.stride);
  parallel_for(s.n * depth * bands.count * blocks.count, threads, [&](int64_t unit, int) {
    const Range vectors = blocks[unit % blocks.count];
    const int64_t row = unit / blocks.count, plane = row / bands.count, n = plane / depth;
    const int64_t c = vectors.begin * lanes, channels = std::min(s.k, vectors.end * lanes) - c;
    kernels.correlate(x.at(n, c), y.at(n, c), plane % depth, bands[row % bands.count], channels,
                      weights + vectors.begin * vector_weights, relu);
  });
}

template <class T>
void reduce_pixels(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                   std::size_t workspace_limit) {
  const int64_t lanes = vector_lanes<T>(), depth = s.axis[0].out;
  const Blocks blocks(ceil_div(s.k, lanes), kVectors), bands(s.axis[1].out, kBandRows);
  const int64_t units = s.n * depth * bands.count;
  // Some parts of the outputs have sums of their own, added in order: memory is then read as it lies.
  const Blocks parts(units, ceil_div(units, ceil_div(kMinTasks, blocks.count)));
  const int64_t vector_sums = s.taps() * lanes, part_sums = blocks.extent * vector_sums;
  const std::size_t bytes = array_bytes(parts.count, part_sums, sizeof(T));
  const int threads = threads_within(workspace_limit, bytes, 0, threads_for(s), "direct");
  const Workspace memory(bytes);
  T* sums = memory.at<T>(0);
  const Pixels<T> kernels(s, x.stride, dy.stride);
  parallel_for(parts.count * blocks.count, threads, [&](int64_t task, int) {
    const Range vectors = blocks[task % blocks.count], part = parts[task / blocks.count];
    T* sum = sums + task / blocks.count * part_sums + vectors.begin * vector_sums;
    std::fill_n(sum, vectors.size() * vector_sums, T(0));
    const int64_t c = vectors.begin * lanes, channels = std::min(s.k, vectors.end * lanes) - c;
    for (int64_t unit = part.begin; unit < part.end; ++unit) {
      const int64_t plane = unit / bands.count, n = plane / depth;
      kernels.reduce(x.at(n, c), dy.at(n, c), plane % depth, bands[unit % bands.count], channels, sum);
    }
  });
  for (int64_t part = 1; part < parts.count; ++part) {
    for (int64_t i = 0; i < part_sums; ++i) sums[i] += sums[part * part_sums + i];
  }
  write_pixel_gradients(s, sums, dw);
}

// Planes so small that vectors along their rows would be mostly empty: some channels at a time become pixels in a
// stage, and their outputs planes again.
template <class T, class U>
bool small_planes(const ConvShape& s, const Tensor<T>& x, const Tensor<U>& y) {
  return s.k > 1 && s.group_k() == 1 && s.cells() <= kSmallPlane && s.pixels() <= kSmallPlane &&
         spatial_stride(x, in_extents(s)) == 1 && spatial_stride(y, out_extents(s)) == 1;
}

// Planes that the 3x3 kernels serve better all the same: with 8 lanes, or where a row leaves one of 16 free and is read
// once.
template <class T>
bool rows_serve(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& y) {
  const int64_t lanes = vector_lanes<T>();
  return plane_stride3x3(s, x.stride[4], y.stride[4]) != 0 &&
         (lanes == 8 || (lanes > 8 && s.axis[2].in < lanes && s.axis[2].out <= lanes));
}

std::array<int64_t, 5> stage_strides(const Extents& e, int64_t lanes) {
  return {0, 1, e[1] * e[2] * lanes, e[2] * lanes, lanes};
}

template <class T>
void staged_planes(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu,
                   Tensor<T> y, std::size_t workspace_limit) {
  const int64_t lanes = vector_lanes<T>(), vectors = ceil_div(s.k, lanes), vector_weights = (s.taps() + 1) * lanes;
  const std::size_t weight_bytes = array_bytes(vectors, vector_weights, sizeof(T));
  const std::size_t x_bytes = array_bytes(s.cells(), lanes, sizeof(T));
  const std::size_t own = x_bytes + array_bytes(s.pixels(), lanes, sizeof(T));
  const int threads = threads_within(workspace_limit, weight_bytes, own, threads_for(s), "direct");
  const Workspace memory(weight_bytes + static_cast<std::size_t>(threads) * own);
  T* weights = memory.at<T>(0);
  pack_pixel_weights(s, w, bias, weights);
  const Pixels<T> kernels(s, stage_strides(in_extents(s), lanes), stage_strides(out_extents(s), lanes));
  parallel_for(s.n * vectors, threads, [&](int64_t task, int slot) {
    const int64_t n = task / vectors, vector = task % vectors, c = vector * lanes;
    const auto channels = static_cast<int>(std::min(lanes, s.k - c));
    const std::size_t scratch = weight_bytes + static_cast<std::size_t>(slot) * own;
    T *inputs = memory.at<T>(scratch), *outputs = memory.at<T>(scratch + x_bytes);
    layout_kernels<T>().planes_to_pixels(inputs, lanes, x.at(n, c), x.stride[1], channels, s.cells());
    for (int64_t z = 0; z < s.axis[0].out; ++z)
      kernels.correlate(inputs, outputs, z, {0, s.axis[1].out}, lanes, weights + vector * vector_weights, relu);
    layout_kernels<T>().pixels_to_planes(y.at(n, c), y.stride[1], outputs, lanes, channels, s.pixels());
  });
}

template <class T>
void reduce_staged_planes(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                          std::size_t workspace_limit) {
  const int64_t lanes = vector_lanes<T>(), vectors = ceil_div(s.k, lanes), vector_sums = s.taps() * lanes;
  const std::size_t sum_bytes = array_bytes(vectors, vector_sums, sizeof(T));
  const std::size_t x_bytes = array_bytes(s.cells(), lanes, sizeof(T));
  const std::size_t own = x_bytes + array_bytes(s.pixels(), lanes, sizeof(T));
  const int threads = threads_within(workspace_limit, sum_bytes, own, threads_for(s), "direct");
  const Workspace memory(sum_bytes + static_cast<std::size_t>(threads) * own);
  T* sums = memory.at<T>(0);
  std::fill_n(sums, vectors * vector_sums, T(0));
  const Pixels<T> kernels(s, stage_strides(in_extents(s), lanes), stage_strides(out_extents(s), lanes));
  parallel_for(vectors, threads, [&](int64_t vector, int slot) {
    const int64_t c = vector * lanes;
    const auto channels = static_cast<int>(std::min(lanes, s.k - c));
    const std::size_t scratch = sum_bytes + static_cast<std::size_t>(slot) * own;
    T *inputs = memory.at<T>(scratch), *gradients = memory.at<T>(scratch + x_bytes);
    for (int64_t n = 0; n < s.n; ++n) {
      layout_kernels<T>().planes_to_pixels(inputs, lanes, x.at(n, c), x.stride[1], channels, s.cells());
      layout_kernels<T>().planes_to_pixels(gradients, lanes, dy.at(n, c), dy.stride[1], channels, s.pixels());
      for (int64_t z = 0; z < s.axis[0].out; ++z)
        kernels.reduce(inputs, gradients, z, {0, s.axis[1].out}, lanes, sums + vector * vector_sums);
    }
  });
  write_pixel_gradients(s, sums, dw);
}

template <class T>
void pack_plane_weights(const ConvShape& s, const Tensor<const T>& w, int64_t k, T* weights) {
  for_each_cell(w, k, 0, filter_extents(s), {0, s.taps()}, [&](const T& cell, int64_t tap) { weights[tap] = cell; });
}

// Filters of 3x3.
template <class T>
void planes3x3(const ConvShape& s, const Tensor<const T>& x, const Tensor<const T>& w, const Vector<const T>& bias,
               bool relu, const Tensor<T>& y, std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const auto correlate = depthwise_kernels<T>().planes3x3[stride3x3(s) - 1];
  const std::size_t weight_bytes = array_bytes(s.k, 9, sizeof(T));
  const std::size_t shared = weight_bytes + array_bytes(s.k, 1, sizeof(T));
  const int threads = threads_within(workspace_limit, shared, 0, threads_for(s), "direct");
  const Workspace memory(shared);
  T *weights = memory.at<T>(0), *biases = bias.data != nullptr ? memory.at<T>(weight_bytes) : nullptr;
  for (int64_t k = 0; k < s.k; ++k) {
    pack_plane_weights(s, w, k, weights + 9 * k);
    if (biases != nullptr) biases[k] = bias[k];
  }
  // Small planes, of x and y alike, are a task together.
  const Blocks blocks(s.k, s.group_k() > 1 ? 1 : kTaskCells / std::max(s.cells(), s.pixels()));
  parallel_for(s.n * blocks.count, threads, [&](int64_t task, int) {
    const int64_t n = task / blocks.count, k = blocks[task % blocks.count].begin;
    for (int64_t z = 0; z < depth.out; ++z) {
      correlate(blocks[task % blocks.count].size(), output_rows(s, y, n, k, z, {0, height.out}), y.stride[1],
                input_plane(s, x, n, k / s.group_k(), z), x.stride[1], height.pad_begin, width.pad_begin,
                weights + 9 * k, biases == nullptr ? nullptr : biases + k, relu);
    }
  });
}

template <class T>
void planes(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
            std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const std::size_t weight_bytes = array_bytes(s.taps(), 1, sizeof(T));
  const std::size_t own = 2 * weight_bytes + array_bytes(s.taps(), 1, sizeof(RowTap));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const Windows windows(s.axis, x.stride);
  parallel_for(s.n * s.k, threads, [&](int64_t plane, int slot) {
    const int64_t n = plane / s.k, k = plane % s.k, c = k / s.group_k();
    const std::size_t scratch = static_cast<std::size_t>(slot) * own;
    T *weights = memory.at<T>(scratch), *some_weights = memory.at<T>(scratch + weight_bytes);
    auto* some_taps = memory.at<RowTap>(scratch + 2 * weight_bytes);
    pack_plane_weights(s, w, k, weights);
    const T b = bias.data != nullptr ? bias[k] : T(0);
    for (int64_t row = 0; row < depth.out * height.out; ++row) {
      const int64_t z = row / height.out, p = row % height.out;
      int64_t count = 0;
      windows.for_each_row_tap(z, p, [&](int32_t number) {
        some_weights[count] = weights[number];
        some_taps[count++] = windows.row_taps()[number];
      });
      depthwise_kernels<T>().row(y.at(n, k) + z * y.stride[2] + p * y.stride[3], y.stride[4], width.out,
                                 x.at(n, c) + windows.origin(z, p, 0), some_taps, some_weights, count,
                                 width.stride * x.stride[4], b, relu);
    }
  });
}

// Filters of 3x3.
template <class T>
void reduce_planes3x3(const ConvShape& s, const Tensor<const T>& dy, const Tensor<const T>& x, const Tensor<T>& dw) {
  const auto& [depth, height, width] = s.axis;
  const auto reduce = depthwise_kernels<T>().reduce_planes3x3[stride3x3(s) - 1];
  parallel_for(s.k, threads_for(s), [&](int64_t k, int) {
    T sums[9] = {};
    for (int64_t z = 0; z < depth.out; ++z) {
      reduce(s.n, output_rows(s, dy, 0, k, z, {0, height.out}), dy.stride[0], input_plane(s, x, 0, k / s.group_k(), z),
             x.stride[0], height.pad_begin, width.pad_begin, sums);
    }
    for_each_cell(dw, k, 0, filter_extents(s), {0, 9}, [&](T& cell, int64_t tap) { cell = sums[tap]; });
  });
}

template <class T>
void reduce_planes(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                   std::size_t workspace_limit) {
  const auto& [depth, height, width] = s.axis;
  const int64_t lanes = vector_lanes<T>();
  const std::size_t sum_bytes = array_bytes(s.taps(), lanes, sizeof(T));
  const std::size_t tap_bytes = array_bytes(s.taps(), 1, sizeof(RowTap));
  const std::size_t own = sum_bytes + tap_bytes + array_bytes(s.taps(), 1, sizeof(int32_t));
  const int threads = threads_within(workspace_limit, 0, own, threads_for(s), "direct");
  const Workspace memory(static_cast<std::size_t>(threads) * own);
  const Windows windows(s.axis, x.stride);
  parallel_for(s.k, threads, [&](int64_t k, int slot) {
    const int64_t c = k / s.group_k();
    const std::size_t scratch = static_cast<std::size_t>(slot) * own;
    T* sums = memory.at<T>(scratch);
    auto* some_taps = memory.at<RowTap>(scratch + sum_bytes);
    auto* numbers = memory.at<int32_t>(scratch + sum_bytes + tap_bytes);
    std::fill_n(sums, s.taps() * lanes, T(0));
    for (int64_t row = 0; row < s.n * depth.out * height.out; ++row) {
      const int64_t p = row % height.out, z = row / height.out % depth.out, n = row / height.out / depth.out;
      int64_t count = 0;
      windows.for_each_row_tap(z, p, [&](int32_t number) {
        numbers[count] = number;
        some_taps[count++] = windows.row_taps()[number];
      });
      depthwise_kernels<T>().reduce_row(sums, dy.at(n, k) + z * dy.stride[2] + p * dy.stride[3], dy.stride[4],
                                        width.out, x.at(n, c) + windows.origin(z, p, 0), some_taps, numbers, count,
                                        width.stride * x.stride[4]);
    }
    for_each_cell(dw, k, 0, filter_extents(s), {0, s.taps()}, [&](T& cell, int64_t tap) {
      cell = std::accumulate(sums + tap * lanes, sums + (tap + 1) * lanes, T(0));
    });
  });
}

// dx of 3x3 filters with a stride of 2.
template <class T>
void spread_planes(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx) {
  const auto& [depth, height, width] = s.axis;
  parallel_for(s.n * s.c, threads_for(s), [&](int64_t plane, int) {
    const int64_t n = plane / s.c, c = plane % s.c;
    T weights[9];
    pack_plane_weights(s, w, c, weights);
    depthwise_kernels<T>().spread_plane3x3({dx.at(n, c), dx.stride[3], 1, height.in, width.in},
                                           output_rows(s, dy, n, c, 0, {0, height.out}), height.pad_begin,
                                           width.pad_begin, weights);
  });
}

}  // namespace

template <class T>
void fprop(const ConvShape& s, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, bool relu, Tensor<T> y,
           std::size_t workspace_limit) {
  if (channels_last(s, x, y)) return pixels(s, x, w, bias, relu, y, workspace_limit);
  if (small_planes(s, x, y) && !rows_serve<T>(s, x, {y.data, y.stride}))
    return staged_planes(s, x, w, bias, relu, y, workspace_limit);
  if (plane_stride3x3(s, x.stride[4], y.stride[4]) != 0) return planes3x3(s, x, w, bias, relu, y, workspace_limit);
  planes(s, x, w, bias, relu, y, workspace_limit);
}

template <class T>
void dgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx, std::size_t workspace_limit) {
  const bool flat = s.axis[0].in == 1 && s.axis[0].pointwise();
  if (flat && !channels_last(s, dy, dx) && plane_stride3x3(s, dx.stride[4], dy.stride[4]) == 2)
    return spread_planes(s, dy, w, dx);
  for_each_phase(s, w, dx, [&](const ConvShape& phase, Tensor<const T> taps, Tensor<T> inputs) {
    fprop<T>(phase, dy, taps, {}, false, inputs, workspace_limit);
  });
}

template <class T>
void wgrad(const ConvShape& s, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw, std::size_t workspace_limit) {
  if (channels_last(s, x, dy)) return reduce_pixels(s, dy, x, dw, workspace_limit);
  if (small_planes(s, x, dy) && (s.n == 1 || !rows_serve(s, x, dy)))
    return reduce_staged_planes(s, dy, x, dw, workspace_limit);
  if (plane_stride3x3(s, x.stride[4], dy.stride[4]) != 0) return reduce_planes3x3(s, dy, x, dw);
  reduce_planes(s, dy, x, dw, workspace_limit);
}

namespace {

template <class T>
class OldJob final : public Job {
 public:
  OldJob(const ConvCall<T>& call, std::size_t limit)
      : Job({"old", "plans while it runs"}), s_(call.shape), call_(call), limit_(limit) {}
  void run(std::byte*) const override {
    const auto& [pass, shape, a, b, finish, out] = call_;
    if (pass == Pass::forward) return fprop(s_, a, b, finish.bias, finish.relu, out, limit_);
    if (pass == Pass::weight) return wgrad(s_, a, b, out, limit_);
    dgrad(s_, a, b, out, limit_);
    if (!finish.needed()) return;
    parallel_for(s_.n * s_.c, num_threads(), [&](int64_t plane, int) {
      const int64_t c = plane % s_.c;
      for_each_cell(call_.out, plane / s_.c, c, in_extents(s_), {0, s_.cells()},
                    [&](T& cell, int64_t) { cell = call_.finish(cell, c); });
    });
  }

 private:
  ConvShape s_;
  ConvCall<T> call_;
  std::size_t limit_;
};

}  // namespace

bool serves(Pass pass, const ConvShape& s) {
  return s.groups > 1 && s.group_c() == 1 && (pass != Pass::input || s.group_k() == 1);
}

template <class T>
const ConvAlgorithm<T>& algorithm() {
  static const ConvAlgorithm<T> depthwise{
      Algorithm::direct, {}, serves, [](const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
        jobs.push_back(std::make_unique<OldJob<T>>(call, limit));
      }};
  return depthwise;
}
template const ConvAlgorithm<float>& algorithm();
template const ConvAlgorithm<double>& algorithm();

#define FASTCONV_INSTANTIATE(T)                                                                             \
  template void fprop(const ConvShape&, Tensor<const T>, Tensor<const T>, Vector<const T>, bool, Tensor<T>, \
                      std::size_t);                                                                         \
  template void dgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);          \
  template void wgrad(const ConvShape&, Tensor<const T>, Tensor<const T>, Tensor<T>, std::size_t);
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cpu::depthwise
