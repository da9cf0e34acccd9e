// Every measured number of the CPU kernels: its unit, what it trades, where it was measured. A block that stands for a
// cache is tied to it by static_assert. Numbers that follow from registers (tiles, vectors) are with the kernels.
#pragma once

#include "runtime/machine.hpp"

namespace fastconv::cpu::tuning {

// docs/measured/im2col.md
namespace im2col {

// Bytes of a block of patches: BLAS reads them from a core's share of the outer caches, and wide blocks pay best.
inline constexpr int64_t kPatchBytes = 2 << 20;
static_assert(kPatchBytes <= kLastLevelBytes / 8);
// Pixels of a block: narrower ones make BLAS pack the filters too often.
inline constexpr int64_t kMinPixels = 192;
// Tasks that a batch of one is cut into.
inline constexpr int64_t kMinTasks = 4;
// The fewest channels that are worth a task of their own.
inline constexpr int64_t kMinChannels = 16;

}  // namespace im2col

}  // namespace fastconv::cpu::tuning
