// ReLU and its gradient, and a sum through it. NaN passes through ReLU and stops its gradient, as y > 0 says.
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/walk/patches.hpp"
#include "ops.hpp"

namespace fastconv::cpu {
namespace {

constexpr int64_t kBlock = 1 << 14;  // elements of a task: half an L1 or so

template <class Body>
void for_blocks(int64_t size, Body body) {
  const Blocks blocks(size, kBlock);
  parallel_for(blocks.count, num_threads(), [&](int64_t task, int) { body(blocks[task]); });
}

}  // namespace

template <class T>
void relu(const T* x, T* y, int64_t size) {
  for_blocks(size, [=](Range block) {
    for (int64_t i = block.begin; i < block.end; ++i) y[i] = x[i] < 0 ? T(0) : x[i];
  });
}

template <class T>
void relu_grad(const T* dy, const T* y, T* dx, int64_t size) {
  for_blocks(size, [=](Range block) {
    for (int64_t i = block.begin; i < block.end; ++i) {
      const T gradient = dy[i];  // loaded in any case: a branch would keep the loop scalar
      dx[i] = y[i] > 0 ? gradient : T(0);
    }
  });
}

template <class T>
void add(const T* a, const T* b, bool relu, T* y, int64_t size) {
  for_blocks(size, [=](Range block) {
    if (relu) {
      for (int64_t i = block.begin; i < block.end; ++i) y[i] = a[i] + b[i] < 0 ? T(0) : a[i] + b[i];
    } else {
      for (int64_t i = block.begin; i < block.end; ++i) y[i] = a[i] + b[i];
    }
  });
}

template void relu(const float*, float*, int64_t);
template void relu(const double*, double*, int64_t);
template void relu_grad(const float*, const float*, float*, int64_t);
template void relu_grad(const double*, const double*, double*, int64_t);
template void add(const float*, const float*, bool, float*, int64_t);
template void add(const double*, const double*, bool, double*, int64_t);

}  // namespace fastconv::cpu
