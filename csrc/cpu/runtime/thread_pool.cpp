#include "thread_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "float_mode.hpp"

namespace fastconv::cpu {
namespace {

// Long enough to catch the next kernel of a training step, short enough that an idle process stays idle.
constexpr auto kSpin = std::chrono::microseconds(50);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: spins for kSpin if asked to, then sleeps.
template <class T>
void wait_while_equal(const std::atomic<T>& value, T old, bool spin) {
  if (spin) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 16; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  value.wait(old, std::memory_order_acquire);
}

class ThreadPool {
 public:
  void run(int64_t tasks, int threads, TaskRef body) noexcept {
    const std::unique_lock busy(mutex_, std::try_to_lock);
    if (!busy) {
      for (int64_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    grow(threads - 1);
    static const int cores = static_cast<int>(std::thread::hardware_concurrency());
    const bool spin = threads <= cores;
    body_ = &body;
    mode_ = float_mode();
    threads_ = threads;
    claim_ = std::max<int64_t>(1, tasks / (kClaims * threads));
    const auto first = [&](int64_t share) { return tasks / threads * share + std::min(share, tasks % threads); };
    for (int i = 0; i < threads; ++i) {
      shares_[static_cast<std::size_t>(i)].next.store(first(i), std::memory_order_relaxed);
      shares_[static_cast<std::size_t>(i)].end = first(i + 1);
    }
    spin_.store(spin, std::memory_order_relaxed);
    seats_.store(threads - 1, std::memory_order_release);  // opens the job: from here on workers may join
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    work(0, 0);
    // Close the job, so that a worker that has not woken yet is not waited for; those inside are.
    seats_.fetch_or(kClosed);
    for (int inside = inside_.load(); inside != 0; inside = inside_.load()) wait_while_equal(inside_, inside, spin);
  }

 private:
  static constexpr int kClosed = 1 << 30;
  // How often a thread asks for tasks: one part in so many of its share is done while others wait.
  static constexpr int64_t kClaims = 16;

  // Neighbouring tasks of one thread, the same ones each time a job comes again: what they read and write is in its
  // cache, and their outputs share few lines with those of another.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void grow(int workers) {
    while (workers_ < workers) {
      try {
        std::thread([this, home = workers_ + 1] { serve(home); }).detach();
      } catch (const std::exception&) {  // no thread to be had, or no memory for one
        return;                          // the threads there are do all tasks
      }
      ++workers_;
    }
  }

  [[noreturn]] void serve(int home) {
    unsigned seen = 0;
    for (;;) {
      wait_while_equal(generation_, seen, spin_.load(std::memory_order_relaxed));
      seen = generation_.load(std::memory_order_acquire);
      // Announce first, then take a seat: the caller closes the seats first, then waits for `inside_`, so one of the
      // two sees the other (both pairs are sequentially consistent).
      inside_.fetch_add(1);
      int free = seats_.load();
      while (free > 0 && free < kClosed && !seats_.compare_exchange_weak(free, free - 1)) {
      }
      if (free > 0 && free < kClosed) {
        const FloatModeScope mode(mode_);
        work(free, home < threads_ ? home : free);
      }
      if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) inside_.notify_one();
    }
  }

  // The tasks of a share, then what others have left of theirs.
  void work(int slot, int home) {
    for (int i = 0; i < threads_; ++i) {
      Share& share = shares_[static_cast<std::size_t>((home + i) % threads_)];
      for (int64_t first = share.next.fetch_add(claim_, std::memory_order_relaxed); first < share.end;
           first = share.next.fetch_add(claim_, std::memory_order_relaxed)) {
        const int64_t end = std::min(share.end, first + claim_);
        for (int64_t task = first; task < end; ++task) (*body_)(task, slot);
      }
    }
  }

  std::mutex mutex_;  // held by the caller whose job runs
  int workers_ = 0;
  // The job. Written while no worker is inside, read by those that hold a seat.
  const TaskRef* body_ = nullptr;
  FloatMode mode_ = 0;  // the caller's
  int threads_ = 1;
  int64_t claim_ = 1;
  std::array<Share, kMaxThreads> shares_;
  alignas(64) std::atomic<int> seats_{kClosed};
  std::atomic<int> inside_{0};
  std::atomic<bool> spin_{false};
  alignas(64) std::atomic<unsigned> generation_{0};
};

std::atomic<ThreadPool*> pool{nullptr};
std::atomic<int> process_threads{1};
thread_local int thread_limit = 0;

// Made at the first parallel call, and again in a forked child, whose copy of the parent's pool has no threads. Never
// destroyed: a daemon thread may still be inside a kernel when the interpreter exits. Null if there is no memory for
// it.
ThreadPool* shared_pool() noexcept {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
  (void)registered;
  ThreadPool* current = pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    auto* fresh = new (std::nothrow) ThreadPool;
    if (fresh == nullptr || pool.compare_exchange_strong(current, fresh)) return fresh;
    delete fresh;
  }
  return current;
}

}  // namespace

void parallel_for(int64_t tasks, int threads, TaskRef body) noexcept {
  threads = static_cast<int>(std::min<int64_t>(threads, tasks));
  ThreadPool* const workers = threads > 1 ? shared_pool() : nullptr;
  if (workers != nullptr) {
    workers->run(tasks, threads, body);
  } else {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
  }
}

int num_threads() { return thread_limit > 0 ? thread_limit : process_threads.load(std::memory_order_relaxed); }

void set_num_threads(int threads) { process_threads.store(threads, std::memory_order_relaxed); }

int exchange_thread_limit(int threads) {
  const int before = thread_limit;
  thread_limit = threads;
  return before;
}

}  // namespace fastconv::cpu
