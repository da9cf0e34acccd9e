// The scratch memory of one call. Every array is asked for by name before the first byte of a result is written; what
// they take together is then had at once, so that nothing can fail any more while a kernel runs.
//
//   Scratch scratch;                                    in the constructor of a job:
//   packed_ = scratch.shared<T>(panels, panel_size);    one array for all threads
//   stage_ = scratch.each<T>(stage_size);               one array for each thread
//   scratch.fit(workspace_limit, num_threads(), "direct");
//
//   const Arrays at(scratch_, memory);                  when it runs, with scratch_.bytes() of memory:
//   T *packed = at(packed_), *stage = at(stage_, slot);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "workspace.hpp"

namespace fastconv::cpu {

// An array of a call, by its offset in bytes. A handle is small and copied freely.
template <class T>
struct SharedArray {
  std::size_t offset = 0;
};
template <class T>
struct ThreadArray {
  std::size_t offset = 0;
};

class Scratch {
 public:
  // rows x cols elements, beginning at a cache line. std::bad_alloc if no memory could hold them.
  template <class T>
  SharedArray<T> shared(int64_t rows, int64_t cols = 1) {
    return {std::exchange(shared_, shared_ + array_bytes(rows, cols, sizeof(T)))};
  }
  template <class T>
  ThreadArray<T> each(int64_t rows, int64_t cols = 1) {
    return {std::exchange(each_, each_ + array_bytes(rows, cols, sizeof(T)))};
  }

  // Fixes the number of threads: as many of `threads` as have their arrays within `limit` bytes. WorkspaceExceeded if
  // not even one has.
  void fit(std::size_t limit, int threads, const char* algorithm) {
    threads_ = threads_within(limit, shared_, each_, threads, algorithm);
  }

  int threads() const { return threads_; }
  std::size_t bytes() const { return shared_ + static_cast<std::size_t>(threads_) * each_; }
  std::size_t shared_bytes() const { return shared_; }
  std::size_t thread_bytes() const { return each_; }

 private:
  std::size_t shared_ = 0, each_ = 0;
  int threads_ = 1;
};

// Where the arrays of a call lie in its memory.
class Arrays {
 public:
  Arrays(const Scratch& scratch, std::byte* memory)
      : memory_(memory), shared_(scratch.shared_bytes()), each_(scratch.thread_bytes()) {}

  template <class T>
  T* operator()(SharedArray<T> array) const {
    return reinterpret_cast<T*>(memory_ + array.offset);
  }
  template <class T>
  T* operator()(ThreadArray<T> array, int slot) const {
    return reinterpret_cast<T*>(memory_ + shared_ + static_cast<std::size_t>(slot) * each_ + array.offset);
  }

 private:
  std::byte* memory_;
  std::size_t shared_, each_;
};

}  // namespace fastconv::cpu
