// What is fetched ahead of its use.
#pragma once

#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

constexpr int kSecondLevel = 2;  // the locality that __builtin_prefetch takes for the second-level cache
constexpr int kLineBytes = 64;   // of a cache line
// Bytes ahead in each row of an operand that is packed on the way. The rows are more than the hardware follows.
constexpr int kFetchedBytes = 4 * kLineBytes;
// Bytes that fetch_ahead looks ahead.
constexpr int64_t kAheadBytes = 4096;

// The rows of a plane and the taps of a pixel are streams too short for the hardware to follow, but side by side.
template <class T>
void fetch_ahead(const T* src, int64_t step) {
  const auto* const ahead = reinterpret_cast<const char*>(src) + kAheadBytes;
  __builtin_prefetch(ahead);
  if (step == 2) __builtin_prefetch(ahead + kVectorBytes);
}

}  // namespace
}  // namespace fastconv::cpu::FASTCONV_ISA
