// Whether values are neither infinite nor NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace fastconv::cpu {

// Without branches, so that it takes less time than reading the values.
template <class T>
bool all_finite(const T* values, int64_t count) noexcept {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr auto kExponent = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  Bits found = 0;
  for (int64_t i = 0; i < count; ++i) found |= (std::bit_cast<Bits>(values[i]) & kExponent) == kExponent ? 1 : 0;
  return found == 0;
}

}  // namespace fastconv::cpu
