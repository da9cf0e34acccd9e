// Sums, max(x, 0) and its gradient over contiguous arrays, four values a thread.
#include "cuda/runtime/half.hpp"
#include "cuda/runtime/launch.hpp"
#include "ops.hpp"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 4;

template <class T>
struct alignas(sizeof(T) * kValues) Four {
  T value[kValues];
};

template <class T>
bool aligned(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % alignof(Four<T>) == 0;
}

// y[i] = f(a[i], b[i]); `fours` of them by whole words, the rest one by one.
template <class T, class F>
__global__ void __launch_bounds__(kThreads, 1)
    elementwise_kernel(const T* a, const T* b, T* y, int64_t fours, int64_t size, F f) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = first; i < fours; i += step) {
    const Four<T> left = reinterpret_cast<const Four<T>*>(a)[i], right = reinterpret_cast<const Four<T>*>(b)[i];
    Four<T> result;
#pragma unroll
    for (int j = 0; j < kValues; ++j) result.value[j] = f(left.value[j], right.value[j]);
    reinterpret_cast<Four<T>*>(y)[i] = result;
  }
  for (int64_t i = fours * kValues + first; i < size; i += step) y[i] = f(a[i], b[i]);
}

template <class T, class F>
void elementwise(const T* a, const T* b, T* y, int64_t size, F f) {
  const int64_t fours = aligned(a) && aligned(b) && aligned(y) ? size / kValues : 0;
  const int64_t units = fours > 0 ? fours : size;
  launch(elementwise_kernel<T, F>, grid_for(ceil_div(units, kThreads)), kThreads, 0, a, b, y, fours, size, f);
}

struct Relu {
  template <class T>
  __device__ T operator()(T x, T) const {
    return x < T(0) ? T(0) : x;  // NaN stays
  }
};

struct ReluGradient {
  template <class T>
  __device__ T operator()(T dy, T y) const {
    return y > T(0) ? dy : T(0);
  }
};

struct Add {
  bool relu;
  template <class T>
  __device__ T operator()(T a, T b) const {
    const T sum = T(a + b);
    return relu ? Relu{}(sum, sum) : sum;
  }
};

}  // namespace

template <class T>
void relu_fprop(int64_t size, const T* x, T* y) {
  elementwise(x, x, y, size, Relu{});
}

template <class T>
void relu_dgrad(int64_t size, const T* dy, const T* y, T* dx) {
  elementwise(dy, y, dx, size, ReluGradient{});
}

template <class T>
void add(int64_t size, const T* a, const T* b, T* y, bool relu) {
  elementwise(a, b, y, size, Add{relu});
}

#define FASTCONV_INSTANTIATE(T)                             \
  template void add(int64_t, const T*, const T*, T*, bool); \
  template void relu_fprop(int64_t, const T*, T*);          \
  template void relu_dgrad(int64_t, const T*, const T*, T*);
FASTCONV_INSTANTIATE(Float16)
FASTCONV_INSTANTIATE(BFloat16)
FASTCONV_INSTANTIATE(float)
FASTCONV_INSTANTIATE(double)
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv::cuda
