// Sums of parts: work that no result is large enough to share out is cut along its terms.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// sums[parts][size], `stride` elements from one part to the next: the first part becomes the total. Parts are added in
// their order, and their number follows from the geometry alone, so every thread count gives the same bits.
template <class T>
void sum_parts(T* sums, int64_t parts, int64_t stride, int64_t size) noexcept {
  for (int64_t part = 1; part < parts; ++part) {
    const T* other = sums + part * stride;
    for (int64_t i = 0; i < size; ++i) sums[i] += other[i];
  }
}

}  // namespace fastconv::cpu
