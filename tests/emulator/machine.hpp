// The emulated device: runs the blocks of a grid one after another, each thread of a block as a fiber, and stops with a
// report where a kernel breaks a rule of the programming model.
//
// A thread runs until it waits for others. The order in which the threads of a block are entered is an option, and so
// is the moment at which asynchronous copies are made: a kernel that is right gives the same bits in all of them.
// Memory that one thread writes and another reads without a barrier between is left to the sanitizers, for which every
// wait is annotated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace fastconv::emulator {

using Site = std::source_location;  // where a kernel synchronises

enum class Order { forward, reverse, shuffled };

struct Options {
  Order order = Order::forward;
  uint64_t seed = 1;        // of the shuffled order
  bool late_copies = true;  // copies and products are made when they are waited for, not when they are issued
  int capability = 9;       // the major number of the compute capability
};
// At first those that the environment names: FASTCONV_EMULATOR="reverse early", "shuffled late", ...
Options& options();

struct Extent {
  unsigned x = 1, y = 1, z = 1;
  constexpr Extent(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Limits of every device that the kernels are built for; shared memory is that of compute capability 8.6.
inline constexpr unsigned kMaxThreads = 1024, kWarp = 32;
inline constexpr unsigned kMaxGridX = 0x7fffffff, kMaxGridYZ = 65535;
inline constexpr std::size_t kMaxSharedBytes = 99 * 1024;

// Runs body(argument) for every thread of the grid. False, and nothing is run, where a device would refuse the launch.
bool run(const Extent& grid, const Extent& block, std::size_t shared_bytes, void (*body)(void*), void* argument);

// For the thread that runs now.
Extent& thread_index();
Extent& block_index();
Extent& block_extent();
Extent& grid_extent();
void* shared_memory();  // filled with NaN when the block starts

[[noreturn]] void fault(const char* what);  // prints what each thread of the block was doing, and aborts

// __syncthreads, and __syncwarp's effect on memory.
void block_barrier(const Site& site);
void warp_fence_before();
void warp_fence_after();

// A collective of the lanes in `mask`: each hands in some bytes. True in the lane that came last: it sets every lane's
// result and calls finish_collective; in the others the call returns after that. `kind` tells collectives apart.
inline constexpr std::size_t kLaneBytes = 64;
bool join_collective(const void* kind, uint32_t& mask, const void* input, std::size_t bytes, const Site& site);
const void* lane_input(unsigned lane);
void set_lane_result(unsigned lane, const void* result, std::size_t bytes);
void finish_collective(uint32_t mask);
void take_result(void* result, std::size_t bytes);

template <class Result, class Input, class Combine>
Result collective(const void* kind, uint32_t mask, const Input& input, Combine combine, const Site& site) {
  static_assert(sizeof(Input) <= kLaneBytes && sizeof(Result) <= kLaneBytes);
  if (join_collective(kind, mask, &input, sizeof(Input), site)) {
    const auto of = [](unsigned lane) -> const Input& { return *static_cast<const Input*>(lane_input(lane)); };
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1) == 0) continue;
      const Result result = combine(lane, of);
      set_lane_result(lane, &result, sizeof(Result));
    }
    finish_collective(mask);
  }
  Result result;
  take_result(&result, sizeof(Result));
  return result;
}
unsigned lane_index();
unsigned thread_number();  // in its block

// What the current thread has begun and waits for later, in groups: copies (cp.async) or products (wgmma).
enum class Work { copies, products };
struct Task {
  void (*make)(const Task&);
  void* to;
  const void* from;      // null: zeros
  uint64_t operands[2];  // descriptors of matrices
};
// Whether the task waits; if not, it is to be made at once.
bool defer(Work work, const Task& task);
void close_group(Work work);
// The next task that must be made before no more than `groups` groups are open; false when all have been.
bool next_due(Work work, unsigned groups, Task& task);
void check_copy(const void* to, const void* from, std::size_t bytes);

// Sleeps until another thread wakes those that wait for this event: true. False, if nothing else can go on before.
bool sleep_until(const void* event, const Site& site);
void wake(const void* event);

// Shared memory by its address there; the range must lie within what the launch asked for.
std::size_t shared_address(const void* pointer, std::size_t bytes);

}  // namespace fastconv::emulator
