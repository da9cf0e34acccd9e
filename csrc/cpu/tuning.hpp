// Every measured number of the CPU kernels: its unit, what it trades, where it was measured. A block that stands for a
// cache is tied to it by static_assert. Numbers that follow from registers (tiles, vectors) are with the kernels.
#pragma once

#include "runtime/machine.hpp"

namespace fastconv::cpu::tuning {

// Which algorithm auto takes. docs/measured/choices.md
namespace conv {

// Winograd: channels of either kind, below which vectors of the transforms are partly empty (no fewer than a vector's
// lanes), and for 5x5 filters, which spare less.
inline constexpr int64_t kMinWinogradChannels = 8, kLargeWinogradChannels = 16;
// Winograd: outputs of the batch, below which transforming the filters does not pay: forward and weight gradient,
// forward with vectors of 16 lanes (which multiply more outputs in the same time), input gradient.
inline constexpr int64_t kMinWinogradOutputs = 48, kWideWinogradOutputs = 64, kMinWinogradInputs = 16;
// Channels that come out of a group, from which on each packed patch is multiplied often enough to pay for packing it.
inline constexpr int64_t kManyOutputs = 256;
// Channels of a group below which a filter of one cell goes to the direct kernels: a fraction of a panel's terms.
inline constexpr int64_t kFewChannels = 16;
// Channels of a group up to which an input gradient would leave most of a tile's rows empty.
inline constexpr int64_t kFewInputs = 4;
// Outputs of a row below which a weight gradient's rows are too short to be products of their own.
inline constexpr int64_t kShortRow = 8;

}  // namespace conv

// A ratio that decides, without rounding.
struct Ratio {
  int64_t numerator, denominator;
};
// Whether part <= ratio * whole.
constexpr bool within(int64_t part, Ratio ratio, int64_t whole) {
  return ratio.denominator * part <= ratio.numerator * whole;
}
// Whether part >= ratio * whole.
constexpr bool reaches(int64_t part, Ratio ratio, int64_t whole) {
  return ratio.denominator * part >= ratio.numerator * whole;
}

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

// Measured in docs/measured/winograd.md.
namespace winograd {

// Bytes of transformed filters that are kept while all tiles pass them, in one second-level cache: more go to memory
// and back, fewer are transformed again for each block of tiles.
inline constexpr int64_t kSmallFilters = 1 << 20;
static_assert(kSmallFilters <= kL2Bytes);

// By tiles: bytes of the transformed inputs of a task, which a core finds again in its second-level cache and its share
// of the last level. More tiles use a transformed filter more often, fewer leave the filters room.
inline constexpr int64_t kTaskInputs = 3 << 19;
static_assert(kTaskInputs <= kL2Bytes + kLastLevelBytes / 8);
// At least so many tasks, so that the last ones do not leave threads waiting, and so many tiles to cut them from.
inline constexpr int64_t kTileTasks = 16, kMinTiles = 48;
// Channels that a task of the transform of all filters takes, and taps of them that are packed at a time: 8 channels of
// 3x3, or 2 of 5x5, times the widest panel, in a first-level cache.
inline constexpr int64_t kFilterChannels = 16, kStagedTaps = 72;
static_assert(kStagedTaps * 64 * int64_t{4} <= kL1Bytes);

// By filters: bytes of the transformed inputs that all threads stream, in the last-level cache, and of the products
// that a task has beside its filters, in the second level.
inline constexpr int64_t kSharedInputs = 9 << 20, kTaskProducts = 900 << 10;
static_assert(kSharedInputs <= kLastLevelBytes && kTaskProducts <= kL2Bytes);

// The adjoint: cells of an image's plane of dx, a vector of channels each, that add up in a first-level cache; tiles
// of dy and images that pay for it, a task being whole images; and how many tiles of dy there may be for one of dx.
inline constexpr int64_t kMaxStage = 1024, kMinAdjointTiles = 32, kMinImages = 8;
static_assert(kMaxStage * int64_t{32} <= kL1Bytes, "vectors of 32 bytes; the CPUs with longer ones have 48 KB");
inline constexpr Ratio kFewerTiles{3, 4};

// Weight gradient: bytes of both operands of a block of tiles, in the second-level caches of two cores; tiles for which
// it pays to load and store all sums; filters of a task of the products.
inline constexpr int64_t kBlockOperands = 2 << 20, kMinBlock = 128, kTaskFilters = 112;
static_assert(kBlockOperands <= 2 * kL2Bytes);
// By parts: bytes of the sums of a part, in the second-level cache, and of a block's operands beside them; the most
// parts; how often the operands of all tiles outweigh the sums of all parts at least, and those of one part by choice.
inline constexpr int64_t kPartSums = 1 << 20, kPartOperands = 1 << 20, kMaxParts = 32;
static_assert(kPartSums <= kL2Bytes && kPartOperands <= kL2Bytes);
inline constexpr int64_t kOutweighSums = 2, kOperandsOfPart = 32;

}  // namespace winograd

// docs/measured/direct.md
namespace direct {

// Cells that a filter may span: what is copied of the input for one output.
inline constexpr double kMaxWindow = 1 << 20;
// Bytes of a block's copy of the input: larger blocks copy fewer cells twice, smaller ones leave room in the
// second-level cache for the filters that pass.
inline constexpr int64_t kStageBytes = 512 << 10;
static_assert(kStageBytes <= kL2Bytes / 2);
// Outputs of a task, each of which reads all filters.
inline constexpr int64_t kMinPixels = 28;
// Channels that are a fraction of a vector: turned into pixels they would take a whole one.
inline constexpr int64_t kFewChannels = 4;
// Cache lines from one output's patch to the next at whose multiples few sets of a first-level cache hold them all.
inline constexpr int64_t kAliasedLines = 16;

// Outputs of a row as lanes. Measured over 3x3 and 5x5 filters, 4 to 64 of them, of 9 to 1200 cells, and rows of 8 to
// 112 outputs. Filters, in vectors, up to which turning tiles of outputs into rows costs as much as computing them.
inline constexpr Ratio kFewFilters{3, 4};
// The part of the vectors that the outputs of a row fill: enough for one vector of filters, and enough for filters of
// few cells, however many they are.
inline constexpr Ratio kFairUse{5, 8}, kGoodUse{3, 4};
// With a stride: vectors that a row's outputs fill at least.
inline constexpr Ratio kStridedRow{3, 2};
// Cells of a filter.
inline constexpr int64_t kFewCells = 160;
// Vectors of outputs that are worth one more, to begin at a cache line.
inline constexpr int64_t kLongRow = 4;

// Weight gradient. Filters, in panels, that leave most of a panel empty: dot products win.
inline constexpr Ratio kFewPanelFilters{1, 4};
// Cells of a filter, and sums of a tile, with which dot products beat full panels: the tiles of 16 registers are
// smaller.
inline constexpr int64_t kFewDotCells = kFewCells / 2;
inline constexpr int kMinDotSums = 24;
// Bytes of gradients that stay near while a task's outputs pass.
inline constexpr int64_t kSumBytes = 1 << 20;
static_assert(kSumBytes <= kL2Bytes);
// Outputs that take as long as a tile's sums in and out: rows are joined across gaps of no more.
inline constexpr int64_t kSumCost = 4;

}  // namespace direct

// docs/measured/depthwise.md
namespace depthwise {

// Vectors of channels, and rows of outputs, that are computed together: they share a page of memory and the rows of x
// between them, which stay in the first-level cache.
inline constexpr int64_t kVectors = 32, kBandRows = 9;
// Tasks that a weight gradient is cut into, each with sums of its own.
inline constexpr int64_t kMinTasks = 4;
// Cells of a plane along whose rows vectors would be mostly empty.
inline constexpr int64_t kSmallPlane = 16 * 16;
// Cells of planes that are a task together.
inline constexpr int64_t kTaskCells = 1 << 12;
static_assert(kTaskCells * 8 <= kL1Bytes);

}  // namespace depthwise

// docs/measured/pooling.md
namespace pool {

// Averages. Cells of a task: fewer would be over before another thread has begun.
inline constexpr int64_t kTaskCells = 1 << 14;
// Outputs or cells of a row that are made together, and of an axis that has tables: what stands beside a task stays in
// half of a second-level cache, in double.
inline constexpr int64_t kLineCells = 1 << 14;
static_assert(4 * kLineCells * int64_t{8} <= kL2Bytes / 2);
// Channels of a task, so that the few pixels of a global average can be shared out.
inline constexpr int64_t kTaskChannels = 256;
// Rows that one call of the kernel adds.
inline constexpr int kRowsTogether = 64;

// Maxima. Cells of the planes that are one task, unless one plane has more.
inline constexpr int64_t kTaskPlaneCells = 1 << 12;
// Taps of windows that have tables: those of larger ones would outgrow the caches. A tap takes 32 bytes of them.
inline constexpr int64_t kTableTaps = 1 << 16;
static_assert(kTableTaps * int64_t{32} <= 2 * kL2Bytes);
// Columns of the window of a row's only output that are worth being lanes.
inline constexpr int64_t kManyColumns = 8;
// Maxima that are held in a first-level cache before they are stored, and taps of a large window that are looked at
// together.
inline constexpr int64_t kHeldLanes = 256, kPieceTaps = 256;
static_assert(kHeldLanes * int64_t{16} + kPieceTaps * int64_t{32} <= kL1Bytes);

}  // namespace pool

// docs/measured/elementwise.md
namespace elementwise {

// Elements of a task of ReLU: half a first-level cache or so.
inline constexpr int64_t kBlock = 1 << 14;

// Sums: parts of the rows, or of the batch, that are summed apart and added in order; sums of a task, which are some
// cache lines of each row, and fewer where there are few rows; elements for which a second thread pays.
inline constexpr int64_t kParts = 16, kColumns = 64, kFewColumns = 16, kFewRows = 4;
inline constexpr double kSerialSums = 1e5;

// Batch normalisation: cells of a task, and values of a run that is gathered, which stay in a first-level cache.
inline constexpr int64_t kTaskCells = 1 << 14, kGathered = 512;
static_assert(3 * kGathered * int64_t{8} <= kL1Bytes);

}  // namespace elementwise

}  // namespace fastconv::cpu::tuning
