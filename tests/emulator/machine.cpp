// The scheduler of a block. This file is built without the race detector and uses no templates that another file could
// share: what the emulator does to its own state is no business of the kernels.
#include "machine.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "async.hpp"
#include "fiber.hpp"
#include "queue.hpp"
#include "race.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

namespace fastconv::emulator {
namespace {

enum class State { ready, at_barrier, in_collective, asleep, returned };
constexpr const char* kStateName[] = {"ready", "at a barrier", "in a warp collective", "at an mbarrier", "returned"};

struct Thread {
  Fiber fiber;
  State state = State::returned;
  Extent index;
  Site site;  // where it last synchronised
  // The collective that it takes part in.
  const void* kind = nullptr;
  uint32_t mask = 0;
  unsigned fences = 0;
  alignas(16) unsigned char input[kLaneBytes];
  alignas(16) unsigned char result[kLaneBytes];
  const void* event = nullptr;  // what it sleeps for
  bool woken_in_vain = false;
  Queue queue[2];  // by kind of work
};

[[maybe_unused]] constexpr std::size_t kArenaBytes = 256 * 1024;
constexpr std::size_t kPageBytes = 4096, kKeyBytes = 16;
// Behind shared memory there is a page for the keys: two of barriers and two of each warp's fences.
static_assert(kKeyBytes * (2 + 2 * (kMaxThreads / kWarp)) <= kPageBytes);

struct Block {
  Extent grid, block, index, thread;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  unsigned threads = 0, running = 0;
  int waiting = 0;          // at the barrier
  unsigned generation = 0;  // of the barrier
  unsigned char* arena = nullptr;
  std::size_t arena_bytes = 0;
  std::size_t shared_bytes = 0;
};

Block block;
Thread* current = nullptr;
std::mutex one_launch;

Thread* all_threads() {
  static Thread* const all = new Thread[kMaxThreads];
  return all;
}

// Addresses that stand for an event in the race detector's eyes, fresh with each block's arena. A barrier has one for
// each generation: a thread that leaves late must not see arrivals at the next one.
[[maybe_unused]] void* barrier_key() {
  return block.arena + block.arena_bytes - kKeyBytes * (1 + block.generation % 2);
}
[[maybe_unused]] void* fence_key() {
  const auto warp = static_cast<std::size_t>(current - all_threads()) / kWarp;
  return block.arena + block.arena_bytes - kKeyBytes * (3 + 2 * warp + current->fences % 2);
}

// Shared memory, NaN all over, poisoned beyond what the launch asked for.
void reset_arena(std::size_t bytes) {
#ifdef FASTCONV_EMULATOR_TSAN
  if (block.arena != nullptr) ::munmap(block.arena, block.arena_bytes);
  block.arena = nullptr;  // fresh memory: nothing here can race with the block before
  block.arena_bytes = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes + kPageBytes;  // the detector clears all of it
#else
  block.arena_bytes = kArenaBytes;
#endif
  if (block.arena == nullptr) {
    void* const memory = ::mmap(nullptr, block.arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fault("no memory for shared memory");
    block.arena = static_cast<unsigned char*>(memory);
  }
  ASAN_UNPOISON_MEMORY_REGION(block.arena, block.arena_bytes);
  std::memset(block.arena, 0xff, bytes);
  ASAN_POISON_MEMORY_REGION(block.arena + bytes, block.arena_bytes - bytes);
  block.shared_bytes = bytes;
}

void wait() {
  Thread* const me = current;
  me->fiber.leave();
}

void thread_body() {
  __tsan_acquire(&block);  // sees what the host did before the launch
  block.body(block.argument);
  __tsan_release(&block.argument);  // which the host sees after it
  for (const Queue& queue : current->queue) {
    if (!queue.empty()) fault("a thread returned with copies or products that it never waited for");
  }
  current->state = State::returned;
  --block.running;
  wait();
}

// The position-th thread to be entered in this turn.
unsigned in_order(unsigned position, const unsigned* shuffled) {
  switch (options().order) {
    case Order::forward:
      return position;
    case Order::reverse:
      return block.threads - 1 - position;
    case Order::shuffled:
      break;
  }
  return shuffled[position];
}

uint64_t next_random(uint64_t& state) {  // xorshift64
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

// The first sleeper, if there is one: it may have means to go on by itself.
bool wake_one_in_vain(const unsigned* shuffled) {
  for (unsigned position = 0; position < block.threads; ++position) {
    Thread& t = all_threads()[in_order(position, shuffled)];
    if (t.state != State::asleep) continue;
    t.state = State::ready;
    t.woken_in_vain = true;
    return true;
  }
  return false;
}

void run_block(uint64_t& random) {
  Thread* const threads = all_threads();
  unsigned shuffled[kMaxThreads];
  for (unsigned i = 0; i < block.threads; ++i) {
    Thread& t = threads[i];
    t.state = State::ready;
    t.index = {i % block.block.x, i / block.block.x % block.block.y, i / (block.block.x * block.block.y)};
    t.site = {};
    t.fences = 0;
    for (Queue& queue : t.queue) queue.clear();
    t.fiber.restart(thread_body);
    shuffled[i] = i;
  }
  block.running = block.threads;
  block.waiting = 0;
  block.generation = 0;
  __tsan_release(&block);
  while (block.running > 0) {
    for (unsigned i = block.threads; i > 1 && options().order == Order::shuffled; --i) {
      const auto j = static_cast<unsigned>(next_random(random) % i);
      const unsigned swapped = shuffled[i - 1];
      shuffled[i - 1] = shuffled[j];
      shuffled[j] = swapped;
    }
    bool progress = false;
    for (unsigned position = 0; position < block.threads; ++position) {
      Thread& t = threads[in_order(position, shuffled)];
      if (t.state != State::ready) continue;
      progress = true;
      current = &t;
      block.thread = t.index;
      t.fiber.enter();
    }
    if (!progress && !wake_one_in_vain(shuffled)) fault("deadlock: no thread of the block can go on");
  }
  check_copied();
}

Options from_environment() {
  Options chosen;
  const char* const words = std::getenv("FASTCONV_EMULATOR");
  if (words == nullptr) return chosen;
  if (std::strstr(words, "reverse") != nullptr) chosen.order = Order::reverse;
  if (std::strstr(words, "shuffled") != nullptr) chosen.order = Order::shuffled;
  if (std::strstr(words, "early") != nullptr) chosen.late_copies = false;
  return chosen;
}

// Not memcpy: the race detector would see that one.
void copy_bytes(void* to, const void* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    static_cast<volatile unsigned char*>(to)[i] = static_cast<const unsigned char*>(from)[i];
  }
}

Queue& queue_of(Work work) { return current->queue[static_cast<int>(work)]; }

Thread* warp_of(const Thread* thread) {
  Thread* const first = all_threads();
  return first + (thread - first) / kWarp * kWarp;
}

}  // namespace

Options& options() {
  static Options chosen = from_environment();
  return chosen;
}

Extent& thread_index() { return block.thread; }
Extent& block_index() { return block.index; }
Extent& block_extent() { return block.block; }
Extent& grid_extent() { return block.grid; }
void* shared_memory() { return block.arena; }
unsigned thread_number() { return static_cast<unsigned>(current - all_threads()); }
unsigned lane_index() { return thread_number() % kWarp; }

void fault(const char* what) {
  std::fprintf(stderr, "emulator: %s\n  in block (%u, %u, %u)\n", what, block.index.x, block.index.y, block.index.z);
  const Thread* const threads = all_threads();
  for (unsigned i = 0, shown = 0; i < block.threads && shown < 12; ++i) {
    const Thread& t = threads[i];
    if (i > 0 && t.state == threads[i - 1].state && t.site.line() == threads[i - 1].site.line()) continue;
    std::fprintf(stderr, "  threads from %u on: %s, last synchronised at %s:%u\n", i,
                 kStateName[static_cast<int>(t.state)], t.site.file_name(), static_cast<unsigned>(t.site.line()));
    ++shown;
  }
  std::fflush(stderr);
  std::abort();
}

bool run(const Extent& grid, const Extent& extent, std::size_t shared_bytes, void (*body)(void*), void* argument) {
  const uint64_t threads = uint64_t{extent.x} * extent.y * extent.z;
  if (threads == 0 || threads > kMaxThreads || extent.z > 64) return false;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return false;
  if (grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ || shared_bytes > kMaxSharedBytes) return false;
  one_launch.lock();
#ifdef FASTCONV_EMULATOR_TSAN
  if (uint64_t{grid.x} * grid.y * grid.z * threads > kMaxTsanFibers) fault("too many threads for the race detector");
#endif
  block.grid = grid;
  block.block = extent;
  block.body = body;
  block.argument = argument;
  block.threads = static_cast<unsigned>(threads);
  uint64_t random = options().seed | 1;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block.index = {x, y, z};
        reset_arena(shared_bytes);
        run_block(random);
      }
    }
  }
  __tsan_acquire(&block.argument);
  forget_ended_fibers();
  one_launch.unlock();
  return true;
}

void block_barrier(const Site& site) {
  current->site = site;
  if (block.running != block.threads) fault("__syncthreads after threads of the block have returned");
  [[maybe_unused]] void* const key = barrier_key();
  __tsan_release(key);
  if (++block.waiting < static_cast<int>(block.threads)) {
    current->state = State::at_barrier;
    wait();
  } else {
    Thread* const threads = all_threads();
    for (unsigned i = 0; i < block.threads; ++i) {
      if (threads[i].site.line() != site.line())
        fault("divergent __syncthreads: threads of one block wait at different lines");
      threads[i].state = State::ready;
    }
    block.waiting = 0;
    ++block.generation;
  }
  __tsan_acquire(key);
}

void warp_fence_before() { __tsan_release(fence_key()); }
void warp_fence_after() {
  __tsan_acquire(fence_key());
  ++current->fences;
}

bool join_collective(const void* kind, uint32_t& mask, const void* input, std::size_t bytes, const Site& site) {
  Thread& me = *current;
  Thread* const warp = warp_of(&me);
  const unsigned left = block.threads - static_cast<unsigned>(warp - all_threads());
  const unsigned lanes = left < kWarp ? left : kWarp;
  me.site = site;
  if ((mask >> lane_index() & 1) == 0) fault("warp collective: the calling lane is not in its own mask");
  if (lanes < kWarp && mask == ~0u) mask = (1u << lanes) - 1;
  if (lanes < kWarp && mask >> lanes != 0) fault("warp collective: the mask names lanes that the block does not have");
  me.kind = kind;
  me.mask = mask;
  me.state = State::in_collective;
  copy_bytes(me.input, input, bytes);
  bool last = true;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const Thread& other = warp[lane];
    if (other.state == State::returned) fault("warp collective: a lane named in the mask has returned");
    if (other.state != State::in_collective) {
      last = false;
    } else if (other.mask != mask || other.kind != kind) {
      fault("warp collective: lanes of one mask are in different collectives");
    }
  }
  if (!last) wait();
  return last;
}

const void* lane_input(unsigned lane) { return warp_of(current)[lane].input; }
void set_lane_result(unsigned lane, const void* result, std::size_t bytes) {
  copy_bytes(warp_of(current)[lane].result, result, bytes);
}
void finish_collective(uint32_t mask) {
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) != 0) warp_of(current)[lane].state = State::ready;
  }
}
void take_result(void* result, std::size_t bytes) { copy_bytes(result, current->result, bytes); }

void check_copy(const void* to, const void* from, std::size_t bytes) {
  const auto misaligned = [&](const void* address) { return reinterpret_cast<std::uintptr_t>(address) % bytes != 0; };
  if (misaligned(to) || (from != nullptr && misaligned(from))) fault("asynchronous copy: misaligned address");
  shared_address(to, bytes);
}

bool defer(Work work, const Task& task) { return options().late_copies && queue_of(work).push(task); }
void close_group(Work work) { queue_of(work).close_group(); }
bool next_due(Work work, unsigned groups, Task& task) { return queue_of(work).next_due(groups, task); }

bool sleep_until(const void* event, const Site& site) {
  current->site = site;
  current->event = event;
  current->woken_in_vain = false;
  current->state = State::asleep;
  wait();
  return !current->woken_in_vain;
}

void wake(const void* event) {
  Thread* const threads = all_threads();
  for (unsigned i = 0; i < block.threads; ++i) {
    if (threads[i].state == State::asleep && threads[i].event == event) threads[i].state = State::ready;
  }
}

std::size_t shared_address(const void* pointer, std::size_t bytes) {
  const auto* const at = static_cast<const unsigned char*>(pointer);
  if (at < block.arena || at + bytes > block.arena + block.shared_bytes) fault("an address outside shared memory");
  return static_cast<std::size_t>(at - block.arena);
}

}  // namespace fastconv::emulator
