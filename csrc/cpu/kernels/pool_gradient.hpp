// The input gradient of max-pooling, from the taps that the maxima came from.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// The gradient of maxima [rows][lanes]. The tap adds dy[i * dy_row + j * dy_step + dy_offset] to lane j of row i, for
// begin <= j < end and where offsets[...] is its code.
struct SpreadTap {
  int64_t dy_offset, where_offset, begin, end;
  int32_t code;
};
template <class T>
struct SpreadBlock {
  int64_t rows, lanes[2];  // of one phase of columns, or of two that alternate in dx
  const T* dy;
  int64_t dy_row, dy_step;
  const uint8_t* offsets;
  int64_t where_row, where_step;
  const SpreadTap* taps[2];
  int64_t tap_count[2];
  T* dx;  // every cell is written
  int64_t dx_row, dx_step;
  bool alternate;
};
template <class T>
struct PoolGradientKernels {
  void (*spread)(const SpreadBlock<T>& block);
};

}  // namespace fastconv::cpu
