// Sums over windows, for average and sum pooling, and of rows and columns, for bias gradients.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

inline constexpr int64_t kMaxLanes = 16;  // elements of the widest vector

template <class T>
struct SumKernels {
  // out[i] = (init[i] + the rows' weight * row[i * step]) / divisor for i < count; init may be null: zero, or out.
  void (*rows)(T* out, int64_t count, const T* init, const T* const* rows, const T* weights, int64_t row_count,
               int64_t step, T divisor);
  // sums[i] = row[i * stride] + ... + row[i * stride + taps - 1] for i < count, stride 1 or 2. Both arrays are padded
  // as if count were a multiple of kMaxLanes; the row by one element more.
  void (*slide)(T* sums, int64_t count, const T* row, int64_t taps, int64_t stride);
  // The sum of a contiguous run.
  T (*run)(const T* src, int64_t count);
  // The same, added up in double.
  double (*run_in_double)(const T* src, int64_t count);
  // totals[i] += src[row * stride + i] over the rows, for i < count.
  void (*columns_in_double)(double* totals, const T* src, int64_t stride, int64_t rows, int64_t count);
  // out[2i] = even[i] and out[2i + 1] = odd[i] for i < count, all padded as if count were a multiple of kMaxLanes.
  void (*interleave)(T* out, const T* even, const T* odd, int64_t count);
  // out[i * out_step] = src[i * src_step] / (factor * divisors[i]) for i < count; divisors padded likewise.
  void (*divide)(T* out, int64_t out_step, const T* src, int64_t src_step, const T* divisors, T factor, int64_t count);
};

}  // namespace fastconv::cpu
