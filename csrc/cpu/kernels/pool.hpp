// Max-pooling.
#pragma once

#include "taps.hpp"

namespace fastconv::cpu {

// What lanes hold a type in: tap numbers run beside the values, and a byte is too short for them.
template <class T>
struct LaneOf {
  using Type = T;
};
template <>
struct LaneOf<int8_t> {
  using Type = int32_t;
};
template <>
struct LaneOf<uint8_t> {
  using Type = int32_t;
};
template <class T>
using Lane = typename LaneOf<T>::Type;

// Maxima [rows][lanes]: lane j of row i takes the largest x[i * x_row + j * x_step + taps[t].offset] of the taps with
// begin <= j < end: the first of equal ones, the first NaN if there is one, the type's lowest value (-inf) for no tap.
template <class T>
struct MaxBlock {
  int64_t planes, rows, lanes;
  const T* x;
  int64_t x_plane, x_row, x_step;
  const RowTap* taps;
  const int32_t* codes;  // of the taps, >= 0
  int64_t tap_count;
  T* y;
  int64_t y_plane, y_row;  // lanes are side by side
  // What they came from, as one of these or neither: the tap's code as a byte, 255 for none; or the code + index + i *
  // index_row + j * index_step, -1 for none.
  uint8_t* offsets;
  int64_t* indices;
  int64_t where_plane, where_row;
  int64_t index, index_row, index_step;
  bool rectified;  // only maxima > 0 came from anywhere
};

template <class T>
struct PoolKernels {
  void (*maxima)(const MaxBlock<T>& block);
};

struct PoolTables {
  PoolKernels<float> float32;
  PoolKernels<double> float64;
  PoolKernels<int8_t> int8;
  PoolKernels<uint8_t> uint8;
  PoolKernels<int32_t> int32;
  PoolKernels<int64_t> int64;
};

}  // namespace fastconv::cpu
