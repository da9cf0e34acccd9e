// Taps of windows, as the kernels read them.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// What one tap of a window reads along a row of outputs: lane i of [begin, end) reads src[offset + i * step], the
// others padding.
struct RowTap {
  int64_t offset, begin, end;
};

}  // namespace fastconv::cpu
