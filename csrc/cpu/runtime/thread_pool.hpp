// A small thread pool: fork-safe, quiet when idle, never destroyed.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "machine.hpp"

namespace fastconv::cpu {

// A non-owning reference to a callable void(task, slot); the callable outlives the call it is passed to.
class TaskRef {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, TaskRef>)
  TaskRef(F&& body)  // NOLINT(google-explicit-constructor): parallel_for is called with lambdas
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* object, int64_t task, int slot) {
          (*static_cast<std::remove_reference_t<F>*>(object))(task, slot);
        }) {
    static_assert(std::is_nothrow_invocable_v<F&, int64_t, int>, "nobody could catch what a body throws on a worker");
  }

  void operator()(int64_t task, int slot) const { call_(object_, task, slot); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int);
};

// Calls body(task, slot) once for every task in [0, tasks), on at most `threads` threads, the caller among them, and
// returns when all are done. No two tasks that run at the same time share a slot, 0 <= slot < threads: scratch memory
// is indexed by it. Every thread computes in the caller's floating-point mode. Bodies are noexcept. A caller that
// finds the pool busy runs all tasks itself.
void parallel_for(int64_t tasks, int threads, TaskRef body) noexcept;

// Threads that a call from this thread may use: the thread's own limit if it has one, else the process-wide number.
int num_threads();
void set_num_threads(int threads);  // process-wide, 1 <= threads <= kMaxThreads
// This thread's own number, 0 for none; returns the one before.
int exchange_thread_limit(int threads);

inline constexpr int kMaxThreads = 1024;

// Threads for so many operations: one where a second costs more than it saves.
inline int threads_for(double flops, double serial = kSerialFlops) { return flops < serial ? 1 : num_threads(); }

}  // namespace fastconv::cpu
