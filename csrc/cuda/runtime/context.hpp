// What a call runs on: a stream, and scratch memory of the device for as long as the call's kernels need it.
#pragma once

#include <cstddef>
#include <functional>

namespace fastconv::cuda {

struct Context {
  void* stream = nullptr;  // a cudaStream_t; null is the default stream
  std::function<void*(std::size_t bytes)> allocate;
};

// The context of the calls that this thread makes.
class ContextScope {
 public:
  explicit ContextScope(const Context& context);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  const Context* before_;
};
const Context& context();

template <class T>
T* allocate(int64_t count) {
  return static_cast<T*>(context().allocate(static_cast<std::size_t>(count) * sizeof(T)));
}

}  // namespace fastconv::cuda
