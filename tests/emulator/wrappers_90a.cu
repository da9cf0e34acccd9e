// As wrappers.cu, for the instructions of compute capability 9.0a: what copies by tensor maps leave in shared memory,
// and products of a warpgroup.
#include "cuda/gemm/hopper.cuh"
#include "wrappers.hpp"

namespace fastconv::cuda {
namespace {

constexpr int kLines = 192;  // of a tile
constexpr int kChannels = 40, kTaps = 6, kFilters = 24;
constexpr int kImages = 2, kRows = 5, kColumns = 6;

struct Tile {
  alignas(kTileAlignment) unsigned word[kLines * kLineBytes / 4];
  uint64_t full;
};

// Waits for a copy of so many lines, begun by the first thread.
template <class Begin>
__device__ __forceinline__ Tile& copied(int lines, Begin begin) {
  auto& tile = shared_memory<Tile>();
  if (threadIdx.x == 0) {
    init_barrier(&tile.full, 1);
    fence_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    arrive_expecting(&tile.full, static_cast<unsigned>(lines * kLineBytes));
    begin(tile);
  }
  wait_for_phase(&tile.full, 0);
  return tile;
}

__device__ void write_words(const Tile& tile, int lines, unsigned* out) {
  for (int i = static_cast<int>(threadIdx.x); i < lines * kLineBytes / 4; i += kWarpgroupSize) out[i] = tile.word[i];
}

__global__ void tiled(const __grid_constant__ TensorMap map, unsigned* out) {
  const Tile& tile = copied(64, [&](Tile& to) { copy_tile(to.word, map, &to.full, 8, 2, 5); });
  write_words(tile, 64, out);
}

__global__ void patches(const __grid_constant__ TensorMap map, unsigned* out) {
  const Tile& tile = copied(64, [&](Tile& to) { copy_patches(to.word, map, &to.full, 8, 1, -2, 0, 3, 1); });
  write_words(tile, 64, out);
}

template <class T, int kCount>
__global__ void products(const __grid_constant__ TensorMap map, unsigned* out) {
  Tile& tile = copied(kLines, [&](Tile& to) { copy_tile(to.word, map, &to.full, 0, 0, 0); });
  float sums[kCount / 8][4] = {};
  const uint64_t a = tile_descriptor(tile.word), b = tile_descriptor(&tile.word[kWarpgroupRows * kLineBytes / 4]);
  begin_products(sums);
#pragma unroll
  for (int term = 0; term < kLineCells; term += kWgmmaTerms) {
    multiply_tiles<T, kCount>(sums, from_term(a, term), from_term(b, term));
  }
  close_product_group();
  wait_for_products<0>(sums);
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i)
    out[threadIdx.x * (kCount / 2) + i] = std::bit_cast<unsigned>(sums[i / 4][i % 4]);
}

// The number in the upper half of a word, from -7 to 7, as a cell of T.
template <class T>
unsigned small_cell(unsigned word) {
  const int number = static_cast<int>(word >> 16) % 15 - 7;
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(number));
  if (std::is_same_v<T, BFloat16> || number == 0) return bits >> 16;
  return (bits >> 31 << 15) | (((bits >> 23 & 0xffu) - 127 + 15) << 10) | (bits >> 13 & 0x3ffu);
}

template <class T>
Words small_cells() {
  Words words = random_words(kLines * kLineBytes / 4);
  for (unsigned& word : words) word = small_cell<T>(word) | small_cell<T>(word * 40503u) << 16;
  return words;
}

void check_map(bool encoded) {
  if (!encoded) throw std::runtime_error("a tensor map was refused");
}

template <class Kernel>
void run(Kernel kernel, const TensorMap& map, unsigned* out) {
  launch(kernel, 1, kWarpgroupSize, sizeof(Tile), map, out);
}

TensorMap tiled_map(const unsigned* in, uint64_t channels, uint64_t taps, uint64_t filters, uint32_t lines) {
  TensorMap map;
  const uint64_t extents[] = {channels, taps, filters}, strides[] = {2 * channels, 2 * channels * taps};
  const uint32_t box[] = {kLineCells, 1, lines};
  check_map(encode_tiled(map, 3, reinterpret_cast<const Float16*>(in), extents, strides, box));
  return map;
}

void run_tiled(const unsigned* in, unsigned* out) { run(tiled, tiled_map(in, kChannels, kTaps, kFilters, 64), out); }

void run_patches(const unsigned* in, unsigned* out) {
  TensorMap map;
  const uint64_t extents[] = {kChannels, kColumns, kRows, kImages};
  const uint64_t strides[] = {2 * kChannels, 2 * kChannels * kColumns, 2 * kChannels * kColumns * kRows};
  const int lower[] = {-1, -2}, upper[] = {0, 1};
  const uint32_t steps[] = {1, 2, 1, 1};
  check_map(
      encode_im2col(map, reinterpret_cast<const Float16*>(in), extents, strides, lower, upper, kLineCells, 64, steps));
  run(patches, map, out);
}

template <class T, int kCount>
Wrapper product_wrapper(const char* name) {
  return {name, kWarpgroupSize * kCount / 2, [](const unsigned* in, unsigned* out) {
            run(products<T, kCount>, tiled_map(in, 64, 1, kLines, kLines), out);
          }};
}

}  // namespace
}  // namespace fastconv::cuda

int main() {
  using namespace fastconv;
  using namespace fastconv::cuda;
  constexpr std::size_t kTileWords = 64 * kLineBytes / 4;
  return print_all({{"copy of a tile", kTileWords, run_tiled}, {"copy of patches", kTileWords, run_patches}},
                   random_words(kFilters * kTaps * kChannels / 2), 32) |
         print_all({product_wrapper<Float16, 64>("wgmma of float16, 64 columns"),
                    product_wrapper<Float16, 128>("wgmma of float16, 128 columns")},
                   small_cells<Float16>(), 32) |
         print_all({product_wrapper<BFloat16, 64>("wgmma of bfloat16, 64 columns"),
                    product_wrapper<BFloat16, 128>("wgmma of bfloat16, 128 columns")},
                   small_cells<BFloat16>(), 32);
}
