// One thread a cell: from the cell's number to its place, and the taps of a window that meet real cells.
#pragma once

#include "cuda/gemm/operand.cuh"

namespace fastconv::cuda {

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

// An axis as the kernels read it: ints are enough, the host has checked that.
struct Window {
  int in, filter, stride, dilation, pad_begin;

  static Window of(const Axis& a) {
    return {static_cast<int>(a.in), static_cast<int>(a.filter), static_cast<int>(a.stride),
            static_cast<int>(a.dilation), static_cast<int>(a.pad_begin)};
  }
  __device__ __forceinline__ int input(int output, int tap) const {
    return output * stride + tap * dilation - pad_begin;
  }
  // The output, of `outputs`, at which a tap reads an input; -1 if there is none.
  __device__ __forceinline__ int output(int input, int tap, int outputs) const {
    const int distance = input + pad_begin - tap * dilation;
    return distance < 0 || distance % stride != 0 || distance / stride >= outputs ? -1 : distance / stride;
  }
  __device__ __forceinline__ bool inside(int i) const { return static_cast<unsigned>(i) < static_cast<unsigned>(in); }
  // The taps [begin, end) that meet a real cell at an output.
  __device__ __forceinline__ int first_tap(int output) const {
    const int first = input(output, 0);
    return first < 0 ? (dilation - 1 - first) / dilation : 0;
  }
  __device__ __forceinline__ int end_tap(int output) const {
    const int room = in - 1 - input(output, 0);
    const int end = room < 0 ? 0 : room / dilation + 1;
    return end < filter ? end : filter;
  }
};

}  // namespace fastconv::cuda
