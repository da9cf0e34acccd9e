// Operands on their way to the tensor cores: slabs of terms in shared memory, laid out in chunks of 16 bytes, and a
// reader that copies whole chunks where the memory allows it.
#pragma once

#include "mma.cuh"
#include "operand.cuh"

namespace fastconv::cuda {

inline constexpr int kTensorThreads = 256;
template <class T>
inline constexpr int kChunk = 16 / static_cast<int>(sizeof(T));  // cells

struct alignas(16) Chunk {
  unsigned word[4];
};

// kLines rows of a tile of c, or columns, by kDepth terms. Cells of a chunk are neighbours by term (kAlongTerms) or by
// line. Chunks of a line, or term, are exchanged so that what a warp reads or writes at once lies in different banks.
template <class T, int kLines, int kDepth, bool kAlongTerms_>
struct TensorSlab {
  static constexpr bool kAlongTerms = kAlongTerms_;
  alignas(16) T cell[kLines * kDepth];

  __device__ __forceinline__ T* at(int line, int term) {
    if constexpr (kAlongTerms) {
      constexpr int kChunks = kDepth / kChunk<T>;
      // Eight lines are read at once: those that begin in the same bank take different chunks.
      const int chunk = term / kChunk<T> ^ line / (8 / kChunks) % kChunks;
      return &cell[(line * kChunks + chunk) * kChunk<T> + term % kChunk<T>];
    } else {
      constexpr int kChunks = kLines / kChunk<T>;
      // ldmatrix reads a chunk of eight terms at once; words of tf32 are read one by one, from two chunks of four
      // terms.
      const int chunk = line / kChunk<T> ^ (sizeof(T) == 2 ? term % 8 : term % 4 * 2);
      return &cell[(term * kChunks + chunk) * kChunk<T> + line % kChunk<T>];
    }
  }
};

// The words that a lane multiplies, as mma.cuh says: 16 lines from `line`, 32 bytes of terms from `term`. Either those
// of a, or (kOfB) of b for the first eight lines and then for the others: its pairs must lie in neighbouring registers.
template <class T, bool kOfB, class Slab>
__device__ __forceinline__ void load_fragment(Slab& slab, int line, int term, unsigned (&words)[4]) {
  constexpr int kHalf = kMultiplyTerms<T> / 2;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  // Matrix or word i has these of the lines and of the terms.
  const auto line_of = [](int i) { return (kOfB ? i / 2 : i % 2) * 8; };
  const auto term_of = [](int i) { return (kOfB ? i % 2 : i / 2) * kHalf; };
  if constexpr (Slab::kAlongTerms) {
    load_matrices<false>(words, slab.at(line + line_of(lane / 8) + lane % 8, term + term_of(lane / 8)));
  } else if constexpr (sizeof(T) == 2) {
    load_matrices<true>(words, slab.at(line + line_of(lane / 8), term + term_of(lane / 8) + lane % 8));
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = std::bit_cast<unsigned>(*slab.at(line + line_of(i) + lane / 4, term + term_of(i) + lane % 4));
    }
  }
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (unsigned& word : words) word = round_to_tf32(word);
  }
}

// As CellReader, by chunks. Neighbouring threads read neighbouring chunks.
template <class T, int kLines, int kDepth, bool kAlongTerms>
class ChunkReader {
 public:
  static constexpr int kLanes = (kAlongTerms ? kDepth : kLines) / kChunk<T>;
  static constexpr int kStep = kTensorThreads / kLanes;
  static constexpr int kRowCount = kAlongTerms ? kLines / kStep : 1;
  static constexpr int kTurns = kAlongTerms ? 1 : kDepth / kStep;
  static constexpr int kTermStep = kAlongTerms ? kDepth : kStep;

  __device__ __forceinline__ ChunkReader(const Operand<T>& operand, int64_t group, int64_t first_row, int64_t row_count,
                                         int64_t first_term, int64_t last_term)
      : operand_(operand) {
    const int thread = static_cast<int>(threadIdx.x);
    const int dense = thread % kLanes * kChunk<T>, other = thread / kLanes;
    term_in_slab_ = kAlongTerms ? dense : other;
    row_in_slab_ = kAlongTerms ? other : dense;
    terms_left_ = last_term - first_term - term_in_slab_;
    term_ = Digits::of(operand.terms, first_term + term_in_slab_);
    for (int i = 0; i < kRowCount; ++i) {
      row_[i] = OperandRow<T>::of(operand, group, first_row + row_in_slab_ + i * kStep, row_count);
    }
  }

  template <class Slab>
  __device__ __forceinline__ void read(Slab& slab) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const Place term = term_.place(operand_.terms);
#pragma unroll
      for (int i = 0; i < kRowCount; ++i) {
        const bool valid = (terms_left_ > 0) & row_[i].has(term, operand_);
        copy_async(reinterpret_cast<Chunk*>(slab.at(row_in_slab_ + i * kStep, term_in_slab_ + turn * kStep)),
                   reinterpret_cast<const Chunk*>(row_[i].data + term.offset), valid);
      }
      term_.add(operand_.terms, operand_.terms.slab);
      terms_left_ -= kTermStep;
    }
  }

 private:
  const Operand<T>& operand_;
  int term_in_slab_, row_in_slab_;
  int64_t terms_left_;
  Digits term_;
  OperandRow<T> row_[kRowCount];
};

// Whether an operand can be copied by chunks along its rows or its terms: these lie side by side, in whole chunks, and
// every other step keeps to multiples of 16 bytes. A chunk never straddles the edge of an image, since channels have no
// coordinate.
template <class T>
bool by_chunks(const Operand<T>& operand, bool along_terms) {
  const Radix& along = along_terms ? operand.terms : operand.rows;
  const bool plain = along.extent[kW] == 1 && along.extent[kH] == 1 && along.extent[kD] == 1;
  if (!along.other_first && !plain) return false;
  if (along.stride[kOther] != 1 || along.extent[kOther] % kChunk<T> != 0) return false;
  if (reinterpret_cast<std::uintptr_t>(operand.data) % sizeof(Chunk) != 0) return false;
  if (operand.group_stride % kChunk<T> != 0) return false;
  for (const Radix* radix : {&operand.rows, &operand.terms}) {
    for (int digit = 0; digit < 4; ++digit) {
      if (radix == &along && digit == kOther) continue;
      if (radix->extent[digit] > 1 && radix->stride[digit] % kChunk<T> != 0) return false;
    }
  }
  return true;
}

}  // namespace fastconv::cuda
