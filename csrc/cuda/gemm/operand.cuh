// Operands of the matrix product as the tensors they come from: nothing is unrolled into a matrix in memory.
//
// Row i and term t of an operand stand for the cell rows.offset(i) + terms.offset(t) of a tensor. Both numbers are
// counted in mixed radix over (w, h, d, other), where `other` are channels or images: the terms of patches x are the
// cells of a filter, its rows are pixels, or the other way round in the weight gradient. A digit moves the address, and
// those of w, h and d also a coordinate of the image; the two coordinates add up, and where the sum lies outside the
// image the cell is padding and zero. Filters and plain matrices are the same without an image.
#pragma once

#include "cuda/runtime/half.hpp"
#include "cuda/runtime/launch.hpp"
#include "cuda/runtime/window.cuh"
#include "ops.hpp"

namespace fastconv::cuda {

inline constexpr int kW = 0, kH = 1, kD = 2, kOther = 3;

// Filters by the channels that a pass reads (input) and writes (output), both counted within a group: in the input
// gradient these are the filters and the channels of w.
template <class T>
struct Filters {
  const T* data = nullptr;
  int64_t group_stride = 0, output_stride = 0, input_stride = 0;
  int64_t tap_stride[3] = {0, 0, 0};  // along w, h, d

  static Filters forward(const Tensor<const T>& w, const ConvShape& s) {
    return {w.data, s.group_k() * w.stride[0], w.stride[0], w.stride[1], {w.stride[4], w.stride[3], w.stride[2]}};
  }
  static Filters exchanged(const Tensor<const T>& w, const ConvShape& s) {
    Filters filters = forward(w, s);
    filters.output_stride = w.stride[1];
    filters.input_stride = w.stride[0];
    return filters;
  }
};

// Numbers in mixed radix: number = digits over `extent`, the innermost first, which is w, or `other` if it lies
// densest.
struct Radix {
  int extent[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};  // elements that a step of the digit moves the address
  int scale[3] = {0, 0, 0};          // cells that it moves the coordinate
  int shift[3] = {0, 0, 0};
  int slab[4] = {0, 0, 0, 0};  // the digits of a slab of terms: what a reader adds from one to the next
  bool other_first = false;
};

// A plain count, as of filters or the rows of a matrix: nothing moves through an image.
inline Radix one_digit(int64_t extent, int64_t stride) {
  Radix radix;
  radix.extent[kOther] = narrow(extent > 1 ? extent : 1);  // an empty axis is never counted through
  radix.stride[kOther] = stride;
  return radix;
}

template <class T>
struct Operand {
  const T* data = nullptr;
  int64_t group_stride = 0;  // elements from one group's operand to the next one's
  Radix rows, terms;
  int image[3] = {1, 1, 1};  // extents along w, h, d that a coordinate must lie in
  bool along_terms = false;  // whether neighbouring terms, not rows, are neighbours in memory
};

// The result, c[row, column]; coordinates play no part.
template <class T>
struct Result {
  T* data = nullptr;
  int64_t group_stride = 0;
  Radix rows, columns;
};

struct Place {
  int64_t offset;
  int w, h, d;
};

struct Digits {
  int digit[4];

  FASTCONV_HD static Digits of(const Radix& radix, int64_t number) {
    Digits digits;
    if (radix.other_first) digits.digit[kOther] = take_digit(number, radix.extent[kOther]);
    digits.digit[kW] = take_digit(number, radix.extent[kW]);
    digits.digit[kH] = take_digit(number, radix.extent[kH]);
    digits.digit[kD] = take_digit(number, radix.extent[kD]);
    if (!radix.other_first) digits.digit[kOther] = static_cast<int>(number);
    return digits;
  }

  // Adds another number, digit by digit with carries: no division.
  __device__ __forceinline__ void add(const Radix& radix, const int (&step)[4]) {
    int carry = 0;
    const auto advance = [&](int which) {
      digit[which] += step[which] + carry;
      carry = digit[which] >= radix.extent[which] ? 1 : 0;
      if (carry != 0) digit[which] -= radix.extent[which];
    };
    if (radix.other_first) advance(kOther);
    advance(kW);
    advance(kH);
    advance(kD);
    if (!radix.other_first) advance(kOther);
  }

  __device__ __forceinline__ int64_t offset(const Radix& radix) const {
    return digit[kW] * radix.stride[kW] + digit[kH] * radix.stride[kH] + digit[kD] * radix.stride[kD] +
           digit[kOther] * radix.stride[kOther];
  }
  __device__ __forceinline__ Place place(const Radix& radix) const {
    return {offset(radix), digit[kW] * radix.scale[kW] + radix.shift[kW], digit[kH] * radix.scale[kH] + radix.shift[kH],
            digit[kD] * radix.scale[kD] + radix.shift[kD]};
  }
};

// Row of an operand: its cells, as seen from the place of a term.
template <class T>
struct OperandRow {
  const T* data;
  int w, h, d;

  // A row beyond the last reads nothing: no coordinate brings it back into the image.
  __device__ __forceinline__ static OperandRow of(const Operand<T>& operand, int64_t group, int64_t row,
                                                  int64_t count) {
    const Place place = Digits::of(operand.rows, row < count ? row : 0).place(operand.rows);
    return {operand.data + group * operand.group_stride + place.offset, row < count ? place.w : kOutside, place.h,
            place.d};
  }
  __device__ __forceinline__ bool has(const Place& term, const Operand<T>& operand) const {
    // Without branches: behind them the compiler would work out the term's offset anew for every row.
    return within(w + term.w, operand.image[kW]) & within(h + term.h, operand.image[kH]) &
           within(d + term.d, operand.image[kD]);
  }

 private:
  static constexpr int kOutside = -(1 << 30);
};

// The part of an operand that one thread brings into slabs of kRows rows and kDepth terms in shared memory, cell by
// cell: one term of each slab, for every kStep-th row. Which threads are neighbours along rows and which along terms
// follows the memory, so that a warp reads consecutive cells either way.
template <class T, int kRows, int kDepth, int kThreads>
class CellReader {
 public:
  static constexpr int kTermStep = kDepth;  // from one turn to the next
  static constexpr int kStep = kThreads / kDepth;
  static constexpr int kCount = kRows / kStep;
  static_assert(kThreads % kDepth == 0 && kRows % kStep == 0);

  // Terms run over [first_term, last_term).
  __device__ __forceinline__ CellReader(const Operand<T>& operand, int64_t group, int64_t first_row, int64_t row_count,
                                        int64_t first_term, int64_t last_term)
      : operand_(operand) {
    const int thread = static_cast<int>(threadIdx.x);
    term_in_slab_ = operand.along_terms ? thread % kDepth : thread / kStep;
    row_in_slab_ = operand.along_terms ? thread / kDepth : thread % kStep;
    terms_left_ = last_term - first_term - term_in_slab_;
    term_ = Digits::of(operand.terms, first_term + term_in_slab_);
    for (int i = 0; i < kCount; ++i) {
      row_[i] = OperandRow<T>::of(operand, group, first_row + row_in_slab_ + i * kStep, row_count);
    }
  }

  // Starts copying the next slab of terms.
  template <class Slab>
  __device__ __forceinline__ void read(Slab& slab) {
    const Place term = term_.place(operand_.terms);
    const bool term_exists = terms_left_ > 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool valid = term_exists & row_[i].has(term, operand_);
      T* const to = slab.at(row_in_slab_ + i * kStep, term_in_slab_);
      if constexpr (sizeof(T) == 2) {  // too small for an asynchronous copy
        *to = valid ? row_[i].data[term.offset] : T(0);
      } else {
        copy_async(to, row_[i].data + term.offset, valid);
      }
    }
    term_.add(operand_.terms, operand_.terms.slab);
    terms_left_ -= kDepth;
  }

 private:
  const Operand<T>& operand_;
  int term_in_slab_, row_in_slab_;
  int64_t terms_left_;
  Digits term_;
  OperandRow<T> row_[kCount];
};

}  // namespace fastconv::cuda
