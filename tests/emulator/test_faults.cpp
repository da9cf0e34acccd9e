// The emulator finds what is wrong with a kernel: each fault is planted in a small kernel and must be seen. Which mode
// sees it is part of the test; docs/cuda.md has the table.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "backend.hpp"
#include "check.hpp"
#include "cuda/runtime/launch.hpp"
#include "report.hpp"

namespace fastconv::cuda {
namespace {

using test::report_of;

#if defined(FASTCONV_EMULATOR_TSAN)
constexpr bool kAddresses = false, kRaces = true;
#elif defined(FASTCONV_EMULATOR_ASAN)
constexpr bool kAddresses = true, kRaces = false;
#else
constexpr bool kAddresses = false, kRaces = false;
#endif

constexpr unsigned kThreads = 64;  // two warps

struct Row {
  float cell[kThreads];
  float after[1];  // so that an index beyond the cells is not yet beyond shared memory
};

enum class Fault { none, planted };

// out[i] = kThreads - 1 - i, passed on through shared memory.
__global__ void reverse(float* out, Fault no_barrier) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  row.cell[i] = static_cast<float>(i);
  if (no_barrier == Fault::none) __syncthreads();
  out[i] = row.cell[kThreads - 1 - i];
}

// Three rounds, in each of which a thread writes its cell and reads its neighbour's.
__global__ void rounds(float* out, Fault no_second_barrier) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    row.cell[i] = static_cast<float>(round);
    __syncthreads();
    sum += row.cell[(i + 1) % kThreads];
    if (no_second_barrier == Fault::none) __syncthreads();
  }
  out[i] = sum;
}

__global__ void copy_through(const float* in, float* out, Fault wait_too_short) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  copy_async(&row.cell[i], in + i, true);
  close_copy_group();
  if (wait_too_short == Fault::none) {
    wait_for_copies<0>();
  } else {
    wait_for_copies<1>();
  }
  __syncthreads();
  out[i] = row.cell[kThreads - 1 - i];
  wait_for_copies<0>();
}

// Copies over cells that other threads still read.
__global__ void copy_over(const float* in, float* out, Fault no_barrier) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  row.cell[i] = -1;
  __syncthreads();
  const float before = row.cell[(i + 1) % kThreads];
  if (no_barrier == Fault::none) __syncthreads();
  copy_async(&row.cell[i], in + i, true);
  close_copy_group();
  wait_for_copies<0>();
  __syncthreads();
  out[i] = before;
}

__global__ void divergent_barrier(float* out) {
  if (threadIdx.x < kThreads / 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void early_return(float* out) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void absent_lane(float* out) {
  if (threadIdx.x % kWarpSize == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

__global__ void lane_that_waits_elsewhere(float* out) {
  if (threadIdx.x % kWarpSize == 3) {
    __syncwarp();
  } else {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
  }
}

__global__ void write_shared(float* out, unsigned offset) {
  auto& row = shared_memory<Row>();
  row.cell[(threadIdx.x + offset) % (kThreads + offset)] = 1;
  __syncthreads();
  out[threadIdx.x] = row.cell[threadIdx.x];
}

__global__ void read_global(const float* in, float* out, unsigned offset) {
  out[threadIdx.x] = in[threadIdx.x + offset];
}

__global__ void misaligned_copy(const float* in, float* out) {
  auto& row = shared_memory<Row>();
  const auto* from = reinterpret_cast<const double*>(in + threadIdx.x);
  copy_async(reinterpret_cast<double*>(&row.cell[threadIdx.x / 2 * 2]), from, true);
  close_copy_group();
  wait_for_copies<0>();
  out[threadIdx.x] = row.cell[threadIdx.x];
}

__global__ void add_without_atomics(int* sum, Fault planted) {
  if (threadIdx.x > 0) return;
  if (planted == Fault::none) {
    atomicMax(sum, static_cast<int>(blockIdx.x));
  } else {
    *sum = *sum + 1;
  }
}

__global__ void sum_of_lanes(float* out) {
  float value = static_cast<float>(threadIdx.x % kWarpSize);
  for (unsigned bits = 1; bits < kWarpSize; bits *= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  out[threadIdx.x] = value;
}

std::vector<float> inputs() {
  std::vector<float> in(kThreads);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  return in;
}

using Kernel = std::function<void(float* out)>;

// Whether each cell of the result is `expected(i)`.
bool right(const Kernel& kernel, float (*expected)(unsigned)) {
  std::vector<float> out(kThreads, -5);
  kernel(out.data());
  bool same = true;
  for (unsigned i = 0; i < kThreads; ++i) same = same && out[i] == expected(i);
  return same;
}

float reversed(unsigned i) { return static_cast<float>(kThreads - 1 - i); }

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// How many of the six modes give a right result.
int right_modes(const Kernel& kernel, float (*expected)(unsigned), int late_modes, int early_modes) {
  using emulator::Order;
  const emulator::Options before = emulator::options();
  int count = 0;
  for (const Order order : {Order::forward, Order::reverse, Order::shuffled}) {
    for (int i = 0; i < late_modes + early_modes; ++i) {
      emulator::options() = {.order = order, .seed = 3, .late_copies = i < late_modes};
      count += right(kernel, expected) ? 1 : 0;
    }
  }
  emulator::options() = before;
  return count;
}

// A fault that spoils the result in a plain run, and that the race detector names.
void check_race(const Kernel& faulty, const Kernel& sound, float (*expected)(unsigned)) {
  CHECK(right(sound, expected));
  if (kRaces) {
    std::vector<float> out(kThreads);
    CHECK(contains(report_of([&] { faulty(out.data()); }), "data race"));
    CHECK_EQUAL(report_of([&] { sound(out.data()); }), std::string());
  } else {
    CHECK(right_modes(faulty, expected, 1, 1) < 6);
    CHECK_EQUAL(right_modes(sound, expected, 1, 1), 6);
  }
}

}  // namespace

TEST(barrier_missing_before_a_read) {
  const auto run = [](Fault fault) {
    return [=](float* out) { launch(reverse, 1, kThreads, sizeof(Row), out, fault); };
  };
  check_race(run(Fault::planted), run(Fault::none), reversed);
}

TEST(barrier_missing_before_an_overwrite) {
  const auto run = [](Fault fault) {
    return [=](float* out) { launch(rounds, 1, kThreads, sizeof(Row), out, fault); };
  };
  check_race(run(Fault::planted), run(Fault::none), [](unsigned) { return 3.0f; });
}

TEST(wait_for_copies_one_group_short) {
  const auto in = inputs();
  const auto run = [&](Fault fault) {
    return [&, fault](float* out) { launch(copy_through, 1, kThreads, sizeof(Row), in.data(), out, fault); };
  };
  check_race(run(Fault::planted), run(Fault::none), reversed);
  if (kRaces) return;
  CHECK_EQUAL(right_modes(run(Fault::planted), reversed, 1, 0), 0);  // late copies are never there in time
}

TEST(copy_over_cells_that_are_still_read) {
  const auto in = inputs();
  const auto run = [&](Fault fault) {
    return [&, fault](float* out) { launch(copy_over, 1, kThreads, sizeof(Row), in.data(), out, fault); };
  };
  check_race(run(Fault::planted), run(Fault::none), [](unsigned) { return -1.0f; });
}

TEST(barriers_and_collectives_that_not_all_reach) {
  std::vector<float> out(kThreads);
  const auto report = [&](void (*kernel)(float*)) {
    return report_of([&] { launch(kernel, 1, kThreads, 0, out.data()); });
  };
  CHECK(contains(report(divergent_barrier), "divergent __syncthreads"));
  CHECK(contains(report(divergent_barrier), "test_faults.cpp:"));
  CHECK(contains(report(early_return), "after threads of the block have returned"));
  CHECK(contains(report(absent_lane), "has returned") || contains(report(absent_lane), "deadlock"));
  CHECK(contains(report(lane_that_waits_elsewhere), "different collectives"));
}

TEST(shared_memory_out_of_bounds) {
  if (!kAddresses) return test::skip("AddressSanitizer finds these");
  std::vector<float> out(kThreads);
  const auto run = [&](unsigned offset) {
    return report_of([&] { launch(write_shared, 1, kThreads, sizeof(Row), out.data(), offset); });
  };
  CHECK_EQUAL(run(0), std::string());
  CHECK(contains(run(1), "out of bounds"));  // of the array: UndefinedBehaviorSanitizer
  CHECK(contains(
      report_of([&] { launch(reverse, 1, kThreads, sizeof(Row) - 2 * sizeof(float), out.data(), Fault::none); }),
      "use-after-poison"));  // of what the launch asked for
}

TEST(global_memory_out_of_bounds) {
  if (!kAddresses) return test::skip("AddressSanitizer finds these");
  const auto in = inputs();
  std::vector<float> out(kThreads);
  const auto run = [&](unsigned offset) {
    return report_of([&] { launch(read_global, 1, kThreads, 0, in.data(), out.data(), offset); });
  };
  CHECK_EQUAL(run(0), std::string());
  CHECK(contains(run(1), "heap-buffer-overflow"));
}

TEST(misaligned_asynchronous_copy) {
  const auto in = inputs();
  std::vector<float> out(kThreads);
  const std::string report =
      report_of([&] { launch(misaligned_copy, 1, kThreads, sizeof(Row), in.data(), out.data()); });
  CHECK(contains(report, "misaligned"));
}

TEST(race_between_blocks) {
  if (!kRaces) return test::skip("ThreadSanitizer finds these");
  int sum = 0;
  const auto run = [&](Fault fault) {
    return report_of([&] { launch(add_without_atomics, 3, kThreads, 0, &sum, fault); });
  };
  CHECK_EQUAL(run(Fault::none), std::string());
  CHECK(contains(run(Fault::planted), "data race"));
}

TEST(launches_that_a_device_refuses) {
  std::vector<float> out(2048);
  CHECK(THROWS(std::runtime_error, launch(sum_of_lanes, 1, 1025, 0, out.data())));
  CHECK(THROWS(std::runtime_error, launch(sum_of_lanes, 1, 32, 100 * 1024, out.data())));
}

TEST(shuffles_sum_a_warp) {
  CHECK(right([](float* out) { launch(sum_of_lanes, 1, kThreads, 0, out); }, [](unsigned) { return 496.0f; }));
}

}  // namespace fastconv::cuda
