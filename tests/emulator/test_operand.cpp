// Numbers in mixed radix beyond 32 bits, and the extents that kernels refuse: problems too large to be run here.
#include "backend.hpp"
#include "check.hpp"
#include "cuda/gemm/operand.cuh"

namespace fastconv::cuda {

TEST(digits_of_large_numbers) {
  Radix radix;
  const int64_t extents[] = {1000, 700, 300};
  for (int i = 0; i < 3; ++i) radix.extent[i] = static_cast<int>(extents[i]);
  radix.extent[kOther] = 1 << 20;
  radix.stride[kW] = 1, radix.stride[kH] = 1000, radix.stride[kD] = 700'000, radix.stride[kOther] = 210'000'000;
  for (const int64_t number : {int64_t{41}, (int64_t{1} << 32) - 1, int64_t{1} << 32, 210'000'000'000'123}) {
    for (const bool other_first : {false, true}) {
      radix.other_first = other_first;
      const Digits digits = Digits::of(radix, number);
      const int64_t other = other_first ? number % (1 << 20) : number / 210'000'000;
      const int64_t rest = other_first ? number / (1 << 20) : number % 210'000'000;
      CHECK_EQUAL(digits.digit[kOther], other, "number", number);
      CHECK_EQUAL(digits.digit[kH], rest / 1000 % 700, "number", number);
      if (!other_first) CHECK_EQUAL(digits.offset(radix), number);
    }
  }
}

TEST(extents_beyond_the_kernels) {
  CHECK_EQUAL(narrow(0x7fffffff), 0x7fffffff);
  CHECK(THROWS(std::invalid_argument, narrow(int64_t{1} << 31)));
  std::array<Axis, 3> axes{};
  axes[2].in = int64_t{1} << 28;
  check_extents(axes);
  axes[2].pad_end = int64_t{1} << 28;
  CHECK(THROWS(std::invalid_argument, check_extents(axes)));
}

}  // namespace fastconv::cuda
