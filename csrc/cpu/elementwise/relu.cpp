// ReLU and its gradient, and a sum through it. NaN passes through ReLU and stops its gradient, as y > 0 says.
#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"
#include "ops.hpp"

namespace fastconv::cpu {
namespace {

template <class Body>
void for_blocks(int64_t size, Body body) {
  const Blocks blocks(size, tuning::elementwise::kBlock);
  parallel_for(blocks.count, num_threads(), [&](int64_t task, int) noexcept { body(blocks[task]); });
}

}  // namespace

template <class T>
void relu_fprop(int64_t size, const T* x, T* y) {
  for_blocks(size, [=](Range block) {
    for (int64_t i = block.begin; i < block.end; ++i) y[i] = x[i] < 0 ? T(0) : x[i];
  });
}

template <class T>
void relu_dgrad(int64_t size, const T* dy, const T* y, T* dx) {
  for_blocks(size, [=](Range block) {
    for (int64_t i = block.begin; i < block.end; ++i) {
      const T gradient = dy[i];  // loaded in any case: a branch would keep the loop scalar
      dx[i] = y[i] > 0 ? gradient : T(0);
    }
  });
}

template <class T>
void add(int64_t size, const T* a, const T* b, T* y, bool relu) {
  for_blocks(size, [=](Range block) {
    if (relu) {
      for (int64_t i = block.begin; i < block.end; ++i) y[i] = a[i] + b[i] < 0 ? T(0) : a[i] + b[i];
    } else {
      for (int64_t i = block.begin; i < block.end; ++i) y[i] = a[i] + b[i];
    }
  });
}

template void relu_fprop(int64_t, const float*, float*);
template void relu_fprop(int64_t, const double*, double*);
template void relu_dgrad(int64_t, const float*, const float*, float*);
template void relu_dgrad(int64_t, const double*, const double*, double*);
template void add(int64_t, const float*, const float*, float*, bool);
template void add(int64_t, const double*, const double*, double*, bool);

}  // namespace fastconv::cpu
