// Every measured number of the CPU kernels: its unit, what it trades, where it was measured. A block that stands for a
// cache is tied to it by static_assert. Numbers that follow from registers (tiles, vectors) are with the kernels.
#pragma once

#include "runtime/machine.hpp"

namespace fastconv::cpu::tuning {

// docs/measured/gemm.md
namespace gemm {

// Right panels of a task. More are packed fewer times; with kLeftRows rows of the left operand they are to stay in the
// second-level cache. AVX-512: 12 panels of 32 columns by 256 terms are 384 KB.
inline constexpr int64_t kTaskColumns = 12;
// Rows of a task's left panels where the right operand is shared: enough tasks against packing fewer times.
inline constexpr int64_t kTaskRows = 224;
// Rows of one where the columns make tasks enough.
inline constexpr int64_t kTallRows = 560;
// Rows of the left panels that pass over a task's right ones together.
inline constexpr int64_t kLeftRows = 56;
// Right panels that read a packed left operand too rarely to pay for packing it.
inline constexpr int64_t kFewColumns = 3;
// Bytes of a shared right operand that all terms of a block may take.
inline constexpr int64_t kRightBytes = 512 << 10;
static_assert(2 * kRightBytes <= kL2Bytes);
// Panels of a shared operand that a task packs side by side, where its terms are far apart.
inline constexpr int64_t kPackedPanels = 6;

}  // namespace gemm

// docs/measured/implicit.md
namespace implicit {

// Outputs of a batch, and outputs for each filter, up to which filters are read where they lie: packing them would cost
// more than it saves. The patches of so few outputs stay in the second-level cache.
inline constexpr int64_t kFewPixels = 256;
inline constexpr double kPixelsPerFilter = 0.35;
// Bytes of filters from which on each task packs its own, channels last: they would all go through the last-level
// cache.
inline constexpr int64_t kLargeFilters = 1 << 20;
// Filters for each output from which on a weight gradient packs its patches once for all tasks.
inline constexpr int64_t kFiltersPerPixel = 4;
// Panels of patches that share a stage of rows, and its bytes: more rows are used again, fewer stay near.
inline constexpr int64_t kStagePanels = 6;
inline constexpr int64_t kStageBytes = 64 << 10;
static_assert(kStageBytes <= kL2Bytes / 8);

}  // namespace implicit

// docs/measured/pointwise.md
namespace pointwise {

// Channels, and outputs of an image for each of them: fewer channels, or more outputs, cost too much to turn.
inline constexpr int64_t kMinChannels = 64, kMaxOutputs = 384;
// Bytes of pixels near enough to be read a fraction of a cache line at a time.
inline constexpr int64_t kNearBytes = 512 << 10;
static_assert(kNearBytes <= kL2Bytes);
// Of a cache line, the part that a tile's pixels fill at least where they are farther away.
inline constexpr double kFullLine = 0.75;
// Bytes of pixels that stay in the second-level cache while all filters pass.
inline constexpr int64_t kPartBytes = 1 << 20;
static_assert(kPartBytes <= kL2Bytes);

// Weight gradient. Pixels of the batch: fewer cost less than the sums of their lanes.
inline constexpr int64_t kMinPixels = 512;
// Filters, or channels and one, up to which rows are multiplied where they lie: more are worth packing.
inline constexpr int64_t kMaxNarrow = 32;
// Sums in a tile of dot products below which packing wins: the tiles of 16 registers are smaller.
inline constexpr int kMinDotSums = 24;
// Filters and channels of a task.
inline constexpr int64_t kBlockRows = 256, kBlockColumns = 128;
// Pixels of a chunk: the rows of a tile fit the first-level cache, a block's rows, in bytes, the second.
inline constexpr int64_t kMaxChunk = 768;
inline constexpr int64_t kChunkBytes = 640 << 10;
static_assert(kChunkBytes <= kL2Bytes);

}  // namespace pointwise

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
