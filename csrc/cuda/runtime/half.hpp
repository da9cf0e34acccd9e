// float16 and bfloat16 as they lie in memory. Arithmetic on them is float32's: they only convert, rounding to nearest.
#pragma once

#include <bit>
#include <cstdint>

#ifdef __CUDACC__
#define FASTCONV_CONVERSION __device__ __forceinline__
#else
#define FASTCONV_CONVERSION inline
#endif

namespace fastconv {

struct Float16 {
  uint16_t bits;

  Float16() = default;
  FASTCONV_CONVERSION explicit Float16(float value) {
#ifdef __CUDACC__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    bits = std::bit_cast<uint16_t>(static_cast<_Float16>(value));
#endif
  }
  FASTCONV_CONVERSION operator float() const {
#ifdef __CUDACC__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    return static_cast<float>(std::bit_cast<_Float16>(bits));
#endif
  }
};

struct BFloat16 {  // the upper half of a float32
  uint16_t bits;

  BFloat16() = default;
  FASTCONV_CONVERSION explicit BFloat16(float value) {
    const auto word = std::bit_cast<uint32_t>(value);
    const bool nan = value != value;
    bits = static_cast<uint16_t>(nan ? 0x7fffu : (word + 0x7fffu + (word >> 16 & 1u)) >> 16);  // ties to even
  }
  FASTCONV_CONVERSION operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// What sums of a type are kept in.
template <class T>
struct SumOf {
  using Type = T;
};
template <>
struct SumOf<Float16> {
  using Type = float;
};
template <>
struct SumOf<BFloat16> {
  using Type = float;
};
template <class T>
using Sum = typename SumOf<T>::Type;

}  // namespace fastconv
