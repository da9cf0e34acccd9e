// The instructions of the tensor cores, lane by lane, after the tables of the PTX ISA ("Matrix Fragments for mma" and
// "ldmatrix"). A sum is taken exactly and rounded once; the hardware's own rounding is not specified.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "cuda/runtime/half.hpp"
#include "machine.hpp"

namespace fastconv::emulator {

template <bool kTransposed>
void load_matrices(uint32_t (&words)[4], const void* line, const Site& site) {
  static const char kind{};
  if (reinterpret_cast<std::uintptr_t>(line) % 16 != 0) fault("ldmatrix: misaligned address");
  struct Lines {
    const unsigned char* of[4][kTransposed ? 2 : 1];  // of each matrix those that a lane reads
  };
  // Lanes exchange addresses, and each reads for itself: so the race detector sees who reads what.
  const auto lines = collective<Lines>(
      &kind, ~0u, static_cast<const unsigned char*>(line),
      [](unsigned lane, auto line_of) {
        Lines found;
        for (unsigned matrix = 0; matrix < 4; ++matrix) {
          const unsigned first = 8 * matrix + (kTransposed ? lane % 4 * 2 : lane / 4);
          for (unsigned i = 0; i < std::size(found.of[matrix]); ++i) found.of[matrix][i] = line_of(first + i);
        }
        return found;
      },
      site);
  const unsigned lane = lane_index();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    if constexpr (kTransposed) {
      uint32_t word = 0;
      for (unsigned i = 0; i < 2; ++i) {
        word |= uint32_t{reinterpret_cast<const uint16_t*>(lines.of[matrix][i])[lane / 4]} << (16 * i);
      }
      words[matrix] = word;
    } else {
      words[matrix] = reinterpret_cast<const uint32_t*>(lines.of[matrix][0])[lane % 4];
    }
  }
}

// To the nearest, ties away from zero, as cvt.rna says; infinities and NaN stay.
inline uint32_t round_to_tf32(uint32_t word) {
  const bool finite = (word & 0x7f800000u) != 0x7f800000u;
  return finite ? (word + 0x1000u) & ~0x1fffu : word;
}

// Cell `cell` of a word: a word has one of tf32, two of the others.
template <class T>
float cell_of(uint32_t word, unsigned cell) {
  if constexpr (std::is_same_v<T, float>) return std::bit_cast<float>(word & ~0x1fffu);
  const auto bits = static_cast<uint16_t>(word >> (16 * cell));
  if constexpr (std::is_same_v<T, BFloat16>) return std::bit_cast<float>(uint32_t{bits} << 16);
  static const std::vector<float> all = [] {  // most processors here convert float16 by a function
    std::vector<float> values(1 << 16);
    for (uint32_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(i)));
    return values;
  }();
  return all[bits];
}

template <class T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Site& site) {
  static const char kind{};
  struct Operands {
    uint32_t a[4], b[2];
    float sums[4];
  };
  struct Result {
    float sums[4];
  };
  Operands mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  std::memcpy(mine.sums, sums, sizeof(sums));
  const auto result = collective<Result>(
      &kind, ~0u, mine,
      [](unsigned lane, auto operands_of) {
        constexpr unsigned kCells = 4 / sizeof(T);  // of a word
        Result after;
        for (unsigned i = 0; i < 4; ++i) {
          const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
          double sum = static_cast<double>(operands_of(lane).sums[i]);
          for (unsigned word = 0; word < 8; ++word) {
            const uint32_t left = operands_of(row % 8 * 4 + word % 4).a[row / 8 + word / 4 * 2];
            const uint32_t right = operands_of(column * 4 + word % 4).b[word / 4];
            for (unsigned cell = 0; cell < kCells; ++cell) {
              sum += static_cast<double>(cell_of<T>(left, cell)) * static_cast<double>(cell_of<T>(right, cell));
            }
          }
          after.sums[i] = static_cast<float>(sum);
        }
        return after;
      },
      site);
  std::memcpy(sums, result.sums, sizeof(sums));
}

}  // namespace fastconv::emulator
