// Barriers, copies by tensor maps and products of a warpgroup, together in a small convolution with a ring of two
// stages, against loops; and what goes wrong when a kernel breaks their rules.
#include <string>
#include <vector>

#include "backend.hpp"
#include "check.hpp"
#include "cuda/gemm/hopper.cuh"
#include "report.hpp"

namespace fastconv::cuda {
namespace {

enum class Fault { none, full_not_waited_for, handed_back_early, wrong_term };

constexpr int kStages = 2, kThreads = kWarpgroupSize + kWarpSize;
constexpr int kFilters = 24, kChannels = 72, kChannelSlabs = 2;  // neither fills a tile
constexpr int64_t kImages = 2;
const Axis kHeight{.in = 5, .filter = 3, .stride = 1, .pad_begin = 2, .pad_end = 1, .dilation = 1, .out = 6};
const Axis kWidth{.in = 9, .filter = 2, .stride = 2, .pad_begin = 1, .pad_end = 3, .dilation = 3, .out = 5};
constexpr int kPixels = static_cast<int>(kImages) * 6 * 5;

template <class T>
struct Stages {
  alignas(kTileAlignment) T x[kStages][kWarpgroupRows * kLineCells];
  alignas(kTileAlignment) T w[kStages][kWarpgroupRows * kLineCells];
  uint64_t full[kStages], empty[kStages];
};

template <class T>
void produce(Stages<T>& stages, const TensorMap& x, const TensorMap& w, int slabs) {
  for (int slab = 0; slab < slabs; ++slab) {
    const int stage = slab % kStages, tap = slab / kChannelSlabs, channel = slab % kChannelSlabs * kLineCells;
    const auto parity = static_cast<unsigned>(slab / kStages % 2);
    wait_for_phase(&stages.empty[stage], parity ^ 1u);
    arrive_expecting(&stages.full[stage], sizeof(stages.x[0]) + sizeof(stages.w[0]));
    copy_patches(stages.x[stage], x, &stages.full[stage], channel, -1, -2, 0, tap % 2 * 3, tap / 2);
    copy_tile(stages.w[stage], w, &stages.full[stage], channel, tap, 0);
  }
}

// y[60 pixels][24 filters] by a producer, the last warp, and a warpgroup that multiplies.
template <class T>
__global__ void convolve(const TensorMap x, const TensorMap w, float* y, Fault fault) {
  auto& stages = shared_memory<Stages<T>>();
  constexpr int kSlabs = 3 * 2 * kChannelSlabs;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&stages.full[i], 1);
      init_barrier(&stages.empty[i], kWarpgroupSize);
    }
    fence_barriers();
  }
  __syncthreads();
  if (thread >= kWarpgroupSize) {
    if (lane == 0) produce(stages, x, w, kSlabs);
    return;
  }
  float sums[kWarpgroupRows / 8][4] = {};
  for (int slab = 0; slab < kSlabs; ++slab) {
    const int stage = slab % kStages;
    if (fault != Fault::full_not_waited_for) {
      wait_for_phase(&stages.full[stage], static_cast<unsigned>(slab / kStages % 2));
    }
    begin_products(sums);
    const uint64_t a = tile_descriptor(stages.x[stage]), b = tile_descriptor(stages.w[stage]);
    for (int term = 0; term < kLineCells; term += kWgmmaTerms) {
      const int term_of_a = fault == Fault::wrong_term ? term / 2 : term;
      multiply_tiles<T, kWarpgroupRows>(sums, from_term(a, term_of_a), from_term(b, term));
    }
    close_product_group();
    if (fault == Fault::handed_back_early) {
      wait_for_products<1>(sums);
    } else {
      wait_for_products<0>(sums);
    }
    arrive(&stages.empty[stage]);
  }
  wait_for_products<0>(sums);
  for (int j = 0; j < kWarpgroupRows / 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      const int row = thread / kWarpSize * 16 + lane / 4 + i / 2 * 8, column = 8 * j + lane % 4 * 2 + i % 2;
      if (row < kPixels && column < kFilters) y[row * kFilters + column] = sums[j][i];
    }
  }
}

template <class T>
std::vector<T> integers(std::size_t size, std::size_t factor) {
  std::vector<T> cells(size);
  for (std::size_t i = 0; i < size; ++i) cells[i] = T(static_cast<float>(static_cast<int>(i * factor % 7) - 3));
  return cells;
}

template <class T>
struct Problem {
  std::vector<T> x = integers<T>(static_cast<std::size_t>(kImages * 5 * 9 * kChannels), 5);
  std::vector<T> w = integers<T>(kFilters * 6 * kChannels, 11);  // [filter][tap][channel]
  TensorMap x_map, w_map;

  Problem() {
    const uint64_t size = sizeof(T), c = kChannels;
    const uint64_t extents[] = {c, 9, 5, kImages}, strides[] = {c * size, 9 * c * size, 45 * c * size};
    const int lower[] = {-1, -2}, upper[] = {0, -1};
    const uint32_t steps[] = {1, 2, 1, 1};
    CHECK(encode_im2col(x_map, x.data(), extents, strides, lower, upper, kLineCells, kWarpgroupRows, steps));
    const uint64_t w_extents[] = {c, 6, kFilters}, w_strides[] = {c * size, 6 * c * size};
    const uint32_t box[] = {kLineCells, 1, kWarpgroupRows};
    CHECK(encode_tiled(w_map, 3, w.data(), w_extents, w_strides, box));
  }

  float exact(int pixel, int filter) const {
    const int64_t n = pixel / 30, p = pixel / 5 % 6, q = pixel % 5;
    float sum = 0;
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t s = 0; s < 2; ++s) {
        const int64_t h = kHeight.input(p, r), v = kWidth.input(q, s);
        if (!kHeight.inside(h) || !kWidth.inside(v)) continue;
        for (int64_t c = 0; c < kChannels; ++c) {
          sum += static_cast<float>(x[static_cast<std::size_t>(((n * 5 + h) * 9 + v) * kChannels + c)]) *
                 static_cast<float>(w[static_cast<std::size_t>((filter * 6 + r * 2 + s) * kChannels + c)]);
        }
      }
    }
    return sum;
  }

  bool right(Fault fault) const {
    std::vector<float> y(kPixels * kFilters, -1000);
    launch(convolve<T>, 1, kThreads, sizeof(Stages<T>), x_map, w_map, y.data(), fault);
    bool same = true;
    for (int i = 0; i < kPixels * kFilters; ++i) {
      same = same && y[static_cast<std::size_t>(i)] == exact(i / kFilters, i % kFilters);
    }
    return same;
  }
};

// In how many of three orders the result is right, with copies and products made late or at once.
template <class T>
int right_orders(const Problem<T>& problem, Fault fault, bool late) {
  using emulator::Order;
  const emulator::Options before = emulator::options();
  int count = 0;
  for (const Order order : {Order::forward, Order::reverse, Order::shuffled}) {
    emulator::options() = {.order = order, .seed = 5, .late_copies = late};
    count += problem.right(fault) ? 1 : 0;
  }
  emulator::options() = before;
  return count;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// Kernels that break one rule each; what the emulator says of it.
__global__ void use_uninitialised() { arrive(shared_memory<Stages<Float16>>().full); }
__global__ void arrive_too_often() {
  auto& stages = shared_memory<Stages<Float16>>();
  init_barrier(stages.full, 1);
  arrive_expecting(stages.full, 16);
  arrive(stages.full);
}
__global__ void wait_for_nothing() {
  auto& stages = shared_memory<Stages<Float16>>();
  init_barrier(stages.full, 1);
  wait_for_phase(stages.full, 0);
}
__global__ void copy_to(const TensorMap w, int cells_off, int tap_offset) {
  auto& stages = shared_memory<Stages<Float16>>();
  init_barrier(stages.full, 1);
  if (tap_offset == 0) {
    copy_tile(stages.x[0] + cells_off, w, stages.full, 0, 0, 0);
  } else {
    copy_patches(stages.x[0], w, stages.full, 0, 0, 0, 0, tap_offset, 0);
  }
}
__global__ void multiply_unswizzled() {
  float sums[kWarpgroupRows / 8][4] = {};
  const uint64_t tile = tile_descriptor(shared_memory<Stages<Float16>>().x[0]) & ~(uint64_t{3} << 62);
  multiply_tiles<Float16, kWarpgroupRows>(sums, tile, tile);
  close_product_group();
  wait_for_products<0>(sums);
}
__global__ void multiply_differently() {
  float sums[kWarpgroupRows / 8][4] = {};
  const uint64_t tile = tile_descriptor(shared_memory<Stages<Float16>>().x[0]);
  multiply_tiles<Float16, kWarpgroupRows>(sums, from_term(tile, threadIdx.x == 9 ? 16 : 0), tile);
}
__global__ void never_wait() {
  float sums[kWarpgroupRows / 8][4] = {};
  const uint64_t tile = tile_descriptor(shared_memory<Stages<Float16>>().x[0]);
  multiply_tiles<Float16, kWarpgroupRows>(sums, tile, tile);
}

template <class... Parameters, class... Arguments>
std::string report(void (*kernel)(Parameters...), unsigned threads, const Arguments&... arguments) {
  return test::report_of([&] { launch(kernel, 1, threads, sizeof(Stages<Float16>), arguments...); });
}

}  // namespace

TEST(a_convolution_through_a_ring) {
  const Problem<BFloat16> bfloat16;
  const Problem<Float16> float16;
#ifdef FASTCONV_EMULATOR_TSAN
  CHECK(float16.right(Fault::none));
#else
  for (const bool late : {true, false}) {
    CHECK_EQUAL(right_orders(bfloat16, Fault::none, late), 3);
    CHECK_EQUAL(right_orders(float16, Fault::none, late), 3);
  }
#endif
}

TEST(faults_of_a_ring) {
  const Problem<BFloat16> problem;
#ifdef FASTCONV_EMULATOR_TSAN
  CHECK(contains(test::report_of([&] { problem.right(Fault::handed_back_early); }), "data race"));
  CHECK(contains(test::report_of([&] {
                   emulator::options().late_copies = false;  // late ones are expected again before they come
                   problem.right(Fault::full_not_waited_for);
                 }),
                 "data race"));
#else
  // With late copies a stage is expected again before it is full; at once, it depends on who comes first.
  CHECK(contains(test::report_of([&] { right_orders(problem, Fault::full_not_waited_for, true); }), "more arrivals"));
  CHECK(right_orders(problem, Fault::full_not_waited_for, false) < 3);
  CHECK(right_orders(problem, Fault::handed_back_early, true) < 3);  // the next tile is there too soon
  for (const bool late : {true, false}) CHECK_EQUAL(right_orders(problem, Fault::wrong_term, late), 0);
#endif
}

TEST(rules_of_barriers_copies_and_products) {
  CHECK(contains(report(use_uninitialised, 1), "before it is initialised"));
  CHECK(contains(report(arrive_too_often, 1), "more arrivals"));
  CHECK(contains(report(wait_for_nothing, 1), "nobody can end"));
  const Problem<Float16> problem;
  CHECK(contains(report(copy_to, 1, problem.w_map, 32, 0), "not aligned"));
  CHECK(contains(report(copy_to, 1, problem.x_map, 0, 256), "exceeds a byte"));
  CHECK(contains(report(multiply_unswizzled, kWarpgroupSize), "swizzle"));
  CHECK(contains(report(multiply_differently, kWarpgroupSize), "descriptors differ"));
  CHECK(contains(report(never_wait, kWarpgroupSize), "never waited for"));
}

TEST(what_a_tensor_map_may_be) {
  alignas(16) static Float16 cells[8];
  TensorMap map;
  // Each case breaks one rule of a map that is right otherwise.
  struct Tiled {
    int shift;
    uint64_t channels, tap_stride;
    uint32_t box;
    bool right;
  };
  for (const Tiled& t : {Tiled{0, 40, 80, 64, true},
                         {1, 40, 80, 64, false},
                         {0, 0, 80, 64, false},
                         {0, 40, 88, 64, false},
                         {0, 40, 64, 64, false},
                         {0, 40, 80, 72, false},
                         {0, 40, 80, 60, false}}) {
    const uint64_t extents[] = {t.channels, 6, 24}, strides[] = {t.tap_stride, 6 * t.tap_stride};
    const uint32_t box[] = {t.box, 1, 64};
    CHECK_EQUAL(encode_tiled(map, 3, cells + t.shift, extents, strides, box), t.right, "shift", t.shift, "channels",
                t.channels, "stride", t.tap_stride, "box", t.box);
  }
  const uint32_t too_tall[] = {64, 1, 257};
  const uint64_t extents[] = {64, 9, 5, 2}, strides[] = {128, 1152, 5760};
  CHECK(!encode_tiled(map, 3, cells, extents, strides, too_tall));
  struct Im2col {
    int lower, upper;
    uint32_t pixels, step;
    bool right;
  };
  for (const Im2col& t : {Im2col{-128, 127, 1024, 8, true},
                          {-129, 0, 64, 1, false},
                          {0, 128, 64, 1, false},
                          {0, 0, 1025, 1, false},
                          {0, 0, 64, 9, false},
                          {0, 0, 64, 0, false}}) {
    const int lower[] = {t.lower, 0}, upper[] = {t.upper, 0};
    const uint32_t steps[] = {1, t.step, 1, 1};
    CHECK_EQUAL(encode_im2col(map, cells, extents, strides, lower, upper, 64, t.pixels, steps), t.right, "lower",
                t.lower, "upper", t.upper, "pixels", t.pixels, "step", t.step);
  }
}

}  // namespace fastconv::cuda
