// The op contract: every kernel that Python can reach, with its operands. Backends implement these names, each in a
// namespace of its own; a translation unit sees one of them, as FASTCONV_BACKEND.
//
// Arguments come in one order: the shape, what is read, what is written, options. A pass is named for what it writes:
// fprop the output, dgrad the gradient of its input, wgrad and bgrad those of weights and bias, grad all of them.
// Callers (the bindings) have checked shapes, dtypes and overlap. Any element strides are allowed everywhere, zero and
// negative ones included for inputs. Results do not depend on the thread count. Nothing is written before an exception.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "conv_shape.hpp"

#ifndef FASTCONV_BACKEND
#define FASTCONV_BACKEND cpu
#endif

namespace fastconv {

// A tensor [N,C,D,H,W] (filters: [K,C,T,R,S]) as a pointer and element strides in that order, whatever the memory
// layout.
template <class T>
struct Tensor {
  T* data = nullptr;
  std::array<int64_t, 5> stride{};

  FASTCONV_HD T* at(int64_t n, int64_t c) const { return data + n * stride[0] + c * stride[1]; }
};

template <class T>
struct Vector {
  T* data = nullptr;  // null: absent
  int64_t stride = 1;

  FASTCONV_HD T& operator[](int64_t i) const { return data[i * stride]; }
};

template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0, cols = 0, row_stride = 0, col_stride = 1;

  Matrix transposed() const { return {data, cols, rows, col_stride, row_stride}; }
  Matrix block(int64_t row, int64_t col, int64_t height, int64_t width) const {
    return {data + row * row_stride + col * col_stride, height, width, row_stride, col_stride};
  }
};

enum class Pass { forward, input, weight };
enum class Algorithm { automatic, im2col, implicit, winograd, direct, wgmma };

// What products of float32 may be rounded to; sums are float32's in either.
enum class Precision { fp32, tf32 };

const char* to_string(Algorithm algorithm);
Algorithm parse_algorithm(const std::string& name);  // std::invalid_argument for any other

struct ConvOptions {
  Algorithm algorithm = Algorithm::automatic;
  Precision precision = Precision::fp32;
  std::size_t workspace_limit = std::numeric_limits<std::size_t>::max();  // bytes
};

// One of the ways in which an algorithm computes something, and why a call takes it.
struct Variant {
  const char* name;
  const char* reason;

  friend bool operator==(const Variant& a, const Variant& b) { return std::string_view(a.name) == b.name; }
};

// What a call would do, and why.
struct ConvPlan {
  Algorithm algorithm;
  const char* reason;
  std::vector<Variant> variants{};  // of its algorithm, in the order in which they run
  std::size_t workspace = 0;        // bytes
};

// The element strides of a pass's operands: of x, w and y, of dy, w and dx, or of dy, x and dw.
struct ConvStrides {
  std::array<int64_t, 5> a, b, out;
};

// In place of the number of a tap, a byte: there is none.
inline constexpr uint8_t kNoTap = 255;

// What an average divides the sum of a window by.
struct Divisor {
  int64_t fixed = 0;          // this, unless it is zero
  bool count_padding = true;  // the window's cells in the padded input, or in the input alone; one if it has none
};

namespace FASTCONV_BACKEND {

// std::invalid_argument if the algorithm is named and cannot serve the shape, or not within the workspace limit. The
// choice depends on the geometry and the strides alone.
ConvPlan plan_conv(Pass pass, const ConvShape& shape, const ConvStrides& strides, bool float32,
                   const ConvOptions& options);

// y = conv(x, w) + bias, then max(y, 0) if relu.
template <class T>
void conv_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias, Tensor<T> y,
                bool relu, const ConvOptions& options);
// y = the input gradient of conv for x as dy, plus bias, then max(y, 0) if relu. `shape` is that convolution's: x has
// its outputs and y its inputs. Its own gradients are conv_fprop of dy, and conv_wgrad with dy for x and x for dy.
template <class T>
void conv_transpose_fprop(const ConvShape& shape, Tensor<const T> x, Tensor<const T> w, Vector<const T> bias,
                          Tensor<T> y, bool relu, const ConvOptions& options);
// dx: the gradient of sum(y * dy) by x.
template <class T>
void conv_dgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> w, Tensor<T> dx,
                const ConvOptions& options);
// dw: the gradient of sum(y * dy) by w.
template <class T>
void conv_wgrad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<T> dw,
                const ConvOptions& options);
// dx, dw and db of a convolution, each of which may be absent (null): all are planned before the first is written.
template <class T>
void conv_grad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<const T> w, Tensor<T> dx,
               Tensor<T> dw, Vector<T> db, const ConvOptions& options);
// The same of a transposed convolution, for which dy and dx change places: `shape` has dy as its input.
template <class T>
void conv_transpose_grad(const ConvShape& shape, Tensor<const T> dy, Tensor<const T> x, Tensor<const T> w, Tensor<T> dx,
                         Tensor<T> dw, Vector<T> db, const ConvOptions& options);
// db[K]: dy[N,K,Z,P,Q] summed over all axes but K.
template <class T>
void conv_bgrad(const std::array<int64_t, 5>& dy_shape, Tensor<const T> dy, Vector<T> db);

// indices (may be absent): the flat cell of each maximum in its input plane, -1 where a window holds no cell.
template <class T>
void max_pool_fprop(const PoolShape& shape, Tensor<const T> x, Tensor<T> y, Tensor<int64_t> indices);
// For training: the number (t * R + r) * S + s of the tap that each maximum came from, kNoTap for none. Windows have at
// most 255 taps. If `rectified`, x is the output of a ReLU, and maxima of zero come from none: the gradient is then
// that of the ReLU's input.
template <class T>
void max_pool_offsets_fprop(const PoolShape& shape, Tensor<const T> x, Tensor<T> y, Tensor<uint8_t> offsets,
                            bool rectified);
// dx: each dy at the tap of its window that the offset names; offsets that name none are passed over.
template <class T>
void max_pool_offsets_dgrad(const PoolShape& shape, Tensor<const T> dy, Tensor<const uint8_t> offsets, Tensor<T> dx);
// dx = 0, then dx[indices] += dy; throws std::invalid_argument where an index is outside [-1, cells): dx is untouched
// then, unless it is `fresh`, an array that nobody has seen.
template <class T>
void max_pool_dgrad(const PoolShape& shape, Tensor<const T> dy, Tensor<const int64_t> indices, Tensor<T> dx,
                    bool fresh = false);

// y: the sum of each window, divided.
template <class T>
void avg_pool_fprop(const PoolShape& shape, Tensor<const T> x, Tensor<T> y, Divisor divisor);
// dx: the gradient of sum(y * dy) by x.
template <class T>
void avg_pool_dgrad(const PoolShape& shape, Tensor<const T> dy, Tensor<T> dx, Divisor divisor);

// Batch normalisation of x[N,C,D,H,W], each channel over all other axes; `shape` is that of x. The per-channel arrays
// [C] are contiguous. mean, and the variance with M = N D H W values as its divisor, not M - 1.
template <class T>
void batch_moments(const std::array<int64_t, 5>& shape, Tensor<const T> x, T* mean, T* variance);
// y = (x - mean) scale + bias, then max(y, 0) if relu.
template <class T>
void batch_norm_fprop(const std::array<int64_t, 5>& shape, Tensor<const T> x, const T* mean, const T* scale,
                      const T* bias, Tensor<T> y, bool relu);
// The gradients of sum(y * dy) for y = weight (x - mean) rstd + bias, where mean and rstd are functions of x.
template <class T>
void batch_norm_grad(const std::array<int64_t, 5>& shape, Tensor<const T> dy, Tensor<const T> x, const T* mean,
                     const T* rstd, const T* weight, Tensor<T> dx, T* dweight, T* dbias);

// c[m,n] = a[m,k] b[k,n] + bias[n], then max(c, 0) if relu.
template <class T>
void matmul(Matrix<const T> a, Matrix<const T> b, Vector<const T> bias, Matrix<T> c, bool relu,
            Precision precision = Precision::fp32);
// sums[n] = a[m,n] summed over m.
template <class T>
void column_sum(Matrix<const T> a, Vector<T> sums);
// Contiguous arrays of `size` elements; y may be x, dx may be dy.
template <class T>
void relu_fprop(int64_t size, const T* x, T* y);
template <class T>
void relu_dgrad(int64_t size, const T* dy, const T* y, T* dx);
// y = a + b, then max(y, 0) if relu.
template <class T>
void add(int64_t size, const T* a, const T* b, T* y, bool relu);

}  // namespace FASTCONV_BACKEND

namespace backend = FASTCONV_BACKEND;

}  // namespace fastconv
