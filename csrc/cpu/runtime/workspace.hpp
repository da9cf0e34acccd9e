// Scratch memory of one call, kept by the calling thread for its next call.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "machine.hpp"

namespace fastconv::cpu {

// What Python gets as a MemoryError.
class NoWorkspace : public std::bad_alloc {
 public:
  explicit NoWorkspace(double bytes) {
    std::snprintf(text_.data(), text_.size(),
                  "a call needs %.3g GiB of scratch memory, which cannot be had: workspace_limit bounds it",
                  std::ldexp(bytes, -30));
  }
  const char* what() const noexcept override { return text_.data(); }

 private:
  std::array<char, 128> text_;  // a string would ask for memory too
};

// Bytes of a contiguous array, rounded up to whole cache lines; NoWorkspace if no memory could hold it.
inline std::size_t array_bytes(int64_t rows, int64_t cols, std::size_t itemsize) {
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(rows, cols, &bytes) || __builtin_mul_overflow(bytes, itemsize, &bytes) ||
      bytes > PTRDIFF_MAX / 2) {
    throw NoWorkspace(static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(itemsize));
  }
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

inline constexpr std::size_t kUnlimited = SIZE_MAX;

struct WorkspaceExceeded : std::invalid_argument {
  WorkspaceExceeded(std::size_t limit, std::size_t needed_, const char* algorithm)
      : std::invalid_argument("workspace_limit is " + std::to_string(limit) + " bytes, but algorithm \"" + algorithm +
                              "\" needs at least " + std::to_string(needed_) + " for this shape"),
        needed(needed_) {}
  std::size_t needed;
};

// As many of `threads` as fit into a limit, given the bytes that they share and that each needs for itself;
// WorkspaceExceeded if not even one does.
inline int threads_within(std::size_t limit, std::size_t shared, std::size_t each, int threads, const char* algorithm) {
  if (shared > limit || each > limit - shared) throw WorkspaceExceeded(limit, shared + each, algorithm);
  if (each == 0) return threads;
  return static_cast<int>(std::min(static_cast<std::size_t>(threads), (limit - shared) / each));
}

// At least `bytes` of uninitialised memory on a cache line. Fresh pages cost more than many a kernel, so the block
// stays with the thread, unless it is larger than kKept; a workspace made while another lives has a block of its own,
// which stays too if it is one of the first kBlocks.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes) : place_(alive()) {
    if (place_ < kBlocks) block_ = std::exchange(kept_blocks()[place_], {});
    if (bytes > block_.size) {
      block_ = {};  // free the old one first
      void* memory = ::operator new(bytes, std::align_val_t{kCacheLine}, std::nothrow);
      if (memory == nullptr) throw NoWorkspace(static_cast<double>(bytes));
      block_ = {Memory(static_cast<std::byte*>(memory)), bytes};
    }
    ++alive();
  }
  ~Workspace() {
    --alive();
    if (place_ < kBlocks && block_.size <= kKept && block_.size > kept_blocks()[place_].size)
      kept_blocks()[place_] = std::move(block_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* at(std::size_t byte_offset) const {
    return reinterpret_cast<T*>(block_.memory.get() + byte_offset);
  }

 private:
  static constexpr std::size_t kKept = std::size_t{64} << 20;  // bytes
  static constexpr std::size_t kBlocks = 2;

  struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{kCacheLine}); }
  };
  using Memory = std::unique_ptr<std::byte, Free>;
  struct Block {
    Memory memory;
    std::size_t size = 0;
  };
  static std::array<Block, kBlocks>& kept_blocks() {
    thread_local std::array<Block, kBlocks> blocks;
    return blocks;
  }
  static std::size_t& alive() {
    thread_local std::size_t count = 0;
    return count;
  }

  std::size_t place_;
  Block block_;
};

}  // namespace fastconv::cpu
