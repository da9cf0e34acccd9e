// The thread pool: every task once, slots apart, busy callers, forks, who sets the number.
#include "cpu/runtime/thread_pool.hpp"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "child.hpp"
#include "cpu/runtime/float_mode.hpp"

namespace fastconv::cpu {
namespace {

using Clock = std::chrono::steady_clock;
using test::holds_in_child;

// Waits until the condition holds; false if it never does.
template <class Condition>
bool eventually(Condition condition) {
  const auto deadline = Clock::now() + std::chrono::seconds(test::kPatience);
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Runs as many tasks as threads, each of which waits for all others: only so many threads at once can end it, and each
// must have a slot of its own.
bool runs_in_parallel(int threads) {
  std::atomic<int> present{0};
  std::atomic<unsigned> slots{0};
  std::atomic<bool> together{true};
  parallel_for(threads, threads, [&](int64_t, int slot) noexcept {
    slots.fetch_or(1u << slot);
    ++present;
    if (!eventually([&] { return present == threads; })) together = false;
  });
  return together && slots == (1u << threads) - 1;
}

// Every task once, in no slot twice at a time. Plain ints, so that ThreadSanitizer sees whether the caller may read
// them.
void check_every_task_once(int64_t tasks, int threads) {
  std::vector<int> calls(static_cast<std::size_t>(tasks), 0);
  std::vector<std::atomic<int>> inside(static_cast<std::size_t>(threads));
  std::atomic<bool> shared{false}, outside{false};
  parallel_for(tasks, threads, [&](int64_t task, int slot) noexcept {
    if (slot < 0 || slot >= threads) {
      outside = true;
      return;
    }
    std::atomic<int>& seat = inside[static_cast<std::size_t>(slot)];
    if (seat.fetch_add(1) != 0) shared = true;
    ++calls[static_cast<std::size_t>(task)];
    seat.fetch_sub(1);
  });
  for (std::size_t task = 0; task < calls.size(); ++task) {
    CHECK_EQUAL(calls[task], 1, "task", task, "tasks", tasks, "threads", threads);
  }
  CHECK(!shared && !outside, "tasks", tasks, "threads", threads);
}

// Says so and returns false where a forked child cannot start threads.
bool children_may_thread() {
#if defined(__SANITIZE_THREAD__)
  test::skip("ThreadSanitizer does not follow threads into a forked child");
  return false;
#elif defined(__SANITIZE_ADDRESS__)
  test::skip("AddressSanitizer's allocator may be locked for ever in a forked child");
  return false;
#else
  if (test::emulated()) test::skip("QEMU 7 aborts when a forked child of several threads starts one");
  return !test::emulated();
#endif
}

// A parallel_for on another thread, kept inside the pool until release().
class Occupant {
 public:
  Occupant()
      : thread_([this] {
          parallel_for(2, 2, [this](int64_t, int) noexcept {
            ++inside_;
            released_.wait(false);
          });
        }) {
    CHECK(eventually([this] { return inside_ > 0; }));
  }
  void release() {
    released_ = true;
    released_.notify_all();
    thread_.join();
  }

 private:
  std::atomic<int> inside_{0};
  std::atomic<bool> released_{false};
  std::thread thread_;
};

}  // namespace

TEST(every_task_runs_once) {
  for (int threads = 1; threads <= 8; ++threads) {
    for (const int64_t tasks : {0, 1, 2, 7, 8, 9, 61, 1000}) check_every_task_once(tasks, threads);
  }
}

TEST(many_short_rounds) {
  for (int round = 0; round < 4000; ++round) check_every_task_once(1 + round % 11, 1 + round % 8);
}

TEST(rounds_with_pauses_wake_sleeping_workers) {
  for (int round = 0; round < 40; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // longer than workers spin
    check_every_task_once(5, 3);
  }
}

TEST(as_many_threads_as_asked_for) {
  for (int threads = 1; threads <= 8; ++threads) CHECK(runs_in_parallel(threads), "threads", threads);
}

TEST(a_caller_that_finds_the_pool_busy_runs_alone) {
  Occupant occupant;
  const auto caller = std::this_thread::get_id();
  std::vector<int64_t> order;
  parallel_for(9, 4, [&](int64_t task, int slot) noexcept {
    CHECK_EQUAL(slot, 0);
    CHECK(std::this_thread::get_id() == caller);
    order.push_back(task);
  });
  CHECK(order == (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  occupant.release();
  CHECK(runs_in_parallel(2));
}

TEST(several_callers_at_once) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([caller] {
      for (int round = 0; round < 300; ++round)
        check_every_task_once(1 + (round + caller) % 13, 1 + (round + caller) % 5);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(a_forked_child_has_a_pool_of_its_own) {
  if (!children_may_thread()) return;
  check_every_task_once(8, 4);
  CHECK(holds_in_child([] {
    check_every_task_once(100, 4);
    CHECK(runs_in_parallel(3));
    CHECK(holds_in_child([] { CHECK(runs_in_parallel(2)); }));  // and so has its child
  }));
  CHECK(runs_in_parallel(3));
}

TEST(a_fork_while_another_thread_is_inside) {
  if (!children_may_thread()) return;
  Occupant occupant;
  CHECK(holds_in_child([] {
    check_every_task_once(100, 3);
    CHECK(runs_in_parallel(2));
  }));
  occupant.release();
}

TEST(the_number_of_threads) {
  const int before = num_threads();
  set_num_threads(6);
  CHECK_EQUAL(num_threads(), 6);
  CHECK_EQUAL(exchange_thread_limit(3), 0);
  CHECK_EQUAL(num_threads(), 3);
  std::thread([] {
    CHECK_EQUAL(num_threads(), 6);  // the limit is the other thread's
    CHECK_EQUAL(exchange_thread_limit(2), 0);
    set_num_threads(5);
    CHECK_EQUAL(num_threads(), 2);
  }).join();
  CHECK_EQUAL(num_threads(), 3);
  CHECK_EQUAL(exchange_thread_limit(0), 3);
  CHECK_EQUAL(num_threads(), 5);  // the process's
  set_num_threads(before);
}

// Each task waits for all others, so that each thread has one.
TEST(every_thread_computes_in_the_mode_of_the_caller) {
  constexpr int kThreads = 4;
  const FloatMode own = float_mode();
  for (const FloatMode mode : {own, own | kFlushDenormal, own}) {
    std::atomic<int> arrived{0}, right{0};
    {
      const FloatModeScope scope(mode);
      parallel_for(kThreads, kThreads, [&](int64_t, int) noexcept {
        right += float_mode() == mode;
        ++arrived;
        eventually([&] { return arrived == kThreads; });
      });
      CHECK(float_mode() == mode);
    }
    CHECK_EQUAL(right.load(), kThreads, "mode", mode);
    CHECK(float_mode() == own);
  }
}

TEST(the_switch_of_denormals_changes_the_mode_of_calls_alone) {
  const FloatMode own = float_mode();
  CHECK(!flush_denormal());
  CHECK_EQUAL(set_flush_denormal(true), kFlushDenormal != 0);
  CHECK(call_mode() == (own | kFlushDenormal));
  CHECK(float_mode() == own);
  set_flush_denormal(false);
  CHECK(call_mode() == own);
}

TEST(a_denormal_is_flushed_in_the_mode_that_flushes) {
  if (kFlushDenormal == 0) return test::skip("this CPU has no such mode");
  volatile float tiny = 1e-39F, one = 1;
  CHECK(tiny * one != 0);
  {
    const FloatModeScope scope(float_mode() | kFlushDenormal);
    CHECK(tiny * one == 0);
  }
  CHECK(tiny * one != 0);
}

}  // namespace fastconv::cpu
