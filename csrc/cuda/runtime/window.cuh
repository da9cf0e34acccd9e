// One thread a cell: from the cell's number to its place, and the taps of a window that meet real cells.
#pragma once

#include "half.hpp"
#include "launch.hpp"
#include "ops.hpp"

namespace fastconv::cuda {

inline int narrow(int64_t value) {
  if (value > 0x7fffffff) {
    throw std::invalid_argument("the GPU kernels take extents below 2**31, got " + std::to_string(value));
  }
  return static_cast<int>(value);
}

// An axis as the kernels read it: its coordinates are ints, for which check_extents says that there is room.
using DeviceAxis = AxisOf<int>;
using DeviceAxes = std::array<DeviceAxis, 3>;  // along d, h, w

// std::invalid_argument where an int might not hold the place of the last tap of the last window.
inline void check_extents(const std::array<Axis, 3>& axes) {
  for (const Axis& a : axes) {
    const int64_t windows = a.pad_begin + a.input(a.out - 1, a.filter - 1) + 1;
    const int64_t farthest = (a.in > windows ? a.in : windows) + a.pad_begin + a.pad_end;
    if (farthest < (int64_t{1} << 29)) continue;
    throw std::invalid_argument("the GPU kernels take padded axes below 2**29 cells, got one of " +
                                std::to_string(farthest));
  }
}

inline DeviceAxes device_axes(const std::array<Axis, 3>& axes) {
  return {axes[0].as<int>(), axes[1].as<int>(), axes[2].as<int>()};
}

// number % extent, and number / extent in its place; 32-bit division, where it will do, is several times as fast.
FASTCONV_HD inline int take_digit(int64_t& number, int extent) {
  if (number <= 0xffffffff) {
    const auto low = static_cast<unsigned>(number), divisor = static_cast<unsigned>(extent);
    number = low / divisor;
    return static_cast<int>(low % divisor);
  }
  const auto digit = static_cast<int>(number % extent);
  number /= extent;
  return digit;
}

// An output (or input) cell from its number; the channels are the innermost axis if they lie densest.
struct Cell {
  int64_t n;
  int c, at[3];

  __device__ __forceinline__ static Cell of(int64_t number, int channels, const int (&extent)[3], bool channels_first) {
    Cell cell;
    if (channels_first) cell.c = take_digit(number, channels);
#pragma unroll
    for (int axis = 2; axis >= 0; --axis) cell.at[axis] = take_digit(number, extent[axis]);
    if (!channels_first) cell.c = take_digit(number, channels);
    cell.n = number;
    return cell;
  }

  template <class T>
  __device__ __forceinline__ T* in(const Tensor<T>& t) const {
    return t.at(n, c) + at[0] * t.stride[2] + at[1] * t.stride[3] + at[2] * t.stride[4];
  }
};

}  // namespace fastconv::cuda
