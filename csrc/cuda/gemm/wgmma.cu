// The forward pass of float16 and bfloat16 by the instructions of compute capability 9.0a, and with it the input
// gradient, phase by phase.
//
// A block computes tiles of 128 pixels by 64 or 128 filters. One thread has tiles of patches and filters copied, 64
// channels of one filter cell at a time, through a ring of stages in shared memory; two warpgroups multiply them, each
// for 64 of the pixels:
//
//   patches [128 pixels][64 channels]     of x[N,H,W,C], by an im2col tensor map
//   filters [64 or 128][64 channels]      of w[K,R,S,C], by a tiled one
//
//   full[stage]   ends a phase when both copies have arrived
//   empty[stage]  ends a phase when every warp that multiplies has read the stage
//
// Cells in the padding, and channels and filters beyond the last one, come as zeros.
#include "wgmma.hpp"

#include <algorithm>
#include <optional>

#include "adjoint.hpp"
#include "hopper.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kStages = 3;  // of 32 KiB: two blocks fit a multiprocessor, and one stores while the other multiplies
constexpr int kMultiplyThreads = 2 * kWarpgroupSize, kThreads = kMultiplyThreads + kWarpSize;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr uint64_t kMaxByteStride = uint64_t{1} << 40;

template <class T, int kTileColumns_>
struct WgmmaTile {
  static constexpr int kTileRows = 2 * kWarpgroupRows, kTileColumns = kTileColumns_;
  using Sums = float[kTileColumns / 8][4];
};

template <class T, class Tile>
struct WgmmaStages {
  alignas(kTileAlignment) T patches[kStages][Tile::kTileRows * kLineCells];
  alignas(kTileAlignment) T filters[kStages][Tile::kTileColumns * kLineCells];
  uint64_t full[kStages], empty[kStages];
};

template <class T>
struct WgmmaConv {
  TensorMap patches, filters;
  Product<T> p;
  DeviceAxis height, width;
  int channel_slabs;

  FASTCONV_HD int slabs() const { return height.filter * width.filter * channel_slabs; }
};

// The place of a thread in the ring, the same for all at the same slab.
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;  // of the phases of this round

  __device__ __forceinline__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1u;
  }
};

template <class T, class Tile>
__device__ __forceinline__ void copy_slabs(const WgmmaConv<T>& conv, const TilePlace& at, WgmmaStages<T, Tile>& stages,
                                           RingPlace& place) {
  constexpr unsigned kBytes = (Tile::kTileRows + Tile::kTileColumns) * kLineBytes;
  const int64_t row = at.first_row / conv.width.out;
  const int w = conv.width.input(static_cast<int>(at.first_row % conv.width.out), 0);
  const int h = conv.height.input(static_cast<int>(row % conv.height.out), 0);
  const auto n = static_cast<int>(row / conv.height.out), k = static_cast<int>(at.first_column);
  const int taps = conv.width.filter * conv.height.filter;
  for (int tap = 0; tap < taps; ++tap) {
    const int offset_w = tap % conv.width.filter * conv.width.dilation;
    const int offset_h = tap / conv.width.filter * conv.height.dilation;
    for (int slab = 0; slab < conv.channel_slabs; ++slab) {
      uint64_t* const full = &stages.full[place.stage];
      wait_for_phase(&stages.empty[place.stage], place.parity ^ 1u);
      arrive_expecting(full, kBytes);
      const int c = slab * kLineCells;
      copy_patches(stages.patches[place.stage], conv.patches, full, c, w, h, n, offset_w, offset_h);
      copy_tile(stages.filters[place.stage], conv.filters, full, c, tap, k);
      place.advance();
    }
  }
}

// A stage is handed back once the products of the next one have begun: then its own have ended.
template <class T, class Tile>
__device__ __forceinline__ void multiply_slabs(int slabs, WgmmaStages<T, Tile>& stages, RingPlace& place,
                                               typename Tile::Sums& sums) {
  const int thread = static_cast<int>(threadIdx.x);
  const int first_line = thread / kWarpgroupSize * kWarpgroupRows;
  const auto hand_back = [&](int stage) {
    if (thread % kWarpSize == 0) arrive(&stages.empty[stage]);
  };
  int before = -1;
  for (int slab = 0; slab < slabs; ++slab) {
    wait_for_phase(&stages.full[place.stage], place.parity);
    const uint64_t a = tile_descriptor(&stages.patches[place.stage][first_line * kLineCells]);
    const uint64_t b = tile_descriptor(stages.filters[place.stage]);
    begin_products(sums);
#pragma unroll
    for (int term = 0; term < kLineCells; term += kWgmmaTerms) {
      multiply_tiles<T, Tile::kTileColumns>(sums, from_term(a, term), from_term(b, term));
    }
    close_product_group();
    wait_for_products<1>(sums);
    if (before >= 0) hand_back(before);
    before = place.stage;
    place.advance();
  }
  wait_for_products<0>(sums);
  hand_back(before);
}

template <class T, class Tile>
__device__ __forceinline__ void store_tile(const Product<T>& p, const TilePlace& at, const typename Tile::Sums& sums) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  const int first_column = static_cast<int>(at.first_column) + lane % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t row = at.first_row + thread / kWarpSize * 16 + lane / 4 + half * 8;
    if (row >= p.rows) continue;
    const int64_t row_offset = Digits::of(p.c.rows, row).offset(p.c.rows);
#pragma unroll
    for (int j = 0; j < Tile::kTileColumns / 4; ++j) {
      const int column = first_column + j / 2 * 8 + j % 2;
      if (column >= static_cast<int>(p.columns)) continue;
      finish(p, 0, row, column, row_offset, column * p.c.columns.stride[kOther], sums[j / 2][half * 2 + j % 2]);
    }
  }
}

template <class T, class Tile>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    wgmma_kernel(const __grid_constant__ WgmmaConv<T> conv) {
  auto& stages = shared_memory<WgmmaStages<T, Tile>>();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&stages.full[i], 1);
      init_barrier(&stages.empty[i], kMultiplyThreads / kWarpSize);
    }
    fence_barriers();
  }
  __syncthreads();
  if (thread > kMultiplyThreads) return;
  RingPlace place;
  const int64_t tiles = tile_count<T, Tile>(conv.p);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const TilePlace at = place_of_tile<T, Tile>(conv.p, tile);
    if (thread == kMultiplyThreads) {
      copy_slabs<T, Tile>(conv, at, stages, place);
    } else {
      typename Tile::Sums sums = {};
      multiply_slabs<T, Tile>(conv.slabs(), stages, place, sums);
      store_tile<T, Tile>(conv.p, at, sums);
    }
  }
}

// What the driver and the instruction take of an axis: corners in a signed byte, offsets in one without sign.
bool patches_fit(const Axis& a) {
  const auto is_corner = [](int64_t coordinate) { return coordinate >= -128 && coordinate <= 127; };
  return a.stride <= 8 && a.window() <= 256 && is_corner(a.input(0, 0)) &&
         is_corner(a.input(a.out - 1, 0) - (a.in - 1));
}
bool axis_fits(Pass pass, const Axis& a) {
  if (pass == Pass::forward) return patches_fit(a);
  for (int64_t i = 0; i < std::min(a.stride, a.in); ++i) {
    const Phase phase = make_phase(a, i);
    if (phase.axis.filter > 0 && !patches_fit(phase.axis)) return false;
  }
  return true;
}

template <class T, class Tile>
void launch_tiles(WgmmaConv<T>& conv, const ConvShape& s, const T* filters) {
  const auto c = static_cast<uint64_t>(s.c), taps = static_cast<uint64_t>(s.taps());
  const uint64_t extents[] = {c, taps, static_cast<uint64_t>(s.k)};
  const uint64_t strides[] = {c * sizeof(T), taps * c * sizeof(T)};
  const uint32_t box[] = {kLineCells, 1, Tile::kTileColumns};
  if (!encode_tiled(conv.filters, 3, filters, extents, strides, box)) {
    throw std::runtime_error("CUDA: the driver refuses the tensor map of the filters");
  }
  launch(wgmma_kernel<T, Tile>, grid_for(tile_count<T, Tile>(conv.p)), kThreads, sizeof(WgmmaStages<T, Tile>), conv);
}

// Bytes from one cell of x to the next along w, h and the images, as a tensor map has them; none where x lies otherwise
// than in whole rows of whole pixels of whole chunks.
template <class T>
std::optional<std::array<uint64_t, 3>> byte_strides(const Tensor<const T>& x, const std::array<int64_t, 4>& extents) {
  const std::array<int64_t, 3> strides{x.stride[4], x.stride[3], x.stride[0]};
  if (x.stride[1] != 1 || reinterpret_cast<std::uintptr_t>(x.data) % 16 != 0) return {};
  std::array<uint64_t, 3> bytes{};
  uint64_t before = sizeof(T);
  for (std::size_t i = 0; i < 3; ++i) {
    const uint64_t dense = before * static_cast<uint64_t>(extents[i]);
    bytes[i] = extents[i + 1] == 1 ? dense : static_cast<uint64_t>(strides[i]) * sizeof(T);
    if (bytes[i] < dense || bytes[i] % before != 0 || bytes[i] % 16 != 0 || bytes[i] >= kMaxByteStride) return {};
    before = bytes[i];
  }
  return bytes;
}

}  // namespace

const char* wgmma_needs(Pass pass, const ConvShape& s) {
  if (pass == Pass::weight) return "a forward pass or an input gradient";
  if (s.groups != 1) return "one group";
  const int64_t channels = pass == Pass::forward ? s.c : s.k;
  if (channels == 0 || channels % 8 != 0) return "channels to sum over in multiples of 8";
  if (s.axis[0].in != 1 || !s.axis[0].pointwise()) return "lines or images";
  if (!axis_fits(pass, s.axis[1]) || !axis_fits(pass, s.axis[2])) {
    return "strides of at most 8, pads of at most 128 and dilated filters of at most 120 cells";
  }
  return nullptr;
}

template <class T>
void check_wgmma(const Tensor<const T>& x, const std::array<int64_t, 4>& extents) {
  if (sizeof(T) != 2) {
    throw std::invalid_argument("algorithm \"wgmma\" is for float16 and bfloat16: use \"auto\" or \"implicit\"");
  }
  if (device_capability() != 9) {
    throw std::runtime_error(
        "algorithm \"wgmma\" needs a GPU of compute capability 9.0, and this one's is another: use \"auto\"");
  }
  if (!byte_strides(x, extents)) {
    throw std::invalid_argument(
        "algorithm \"wgmma\" takes arrays with their channels last, every pixel at a multiple of 16 bytes and no axis "
        "reversed or broadcast: copy it, or use \"auto\" or \"implicit\"");
  }
}

template <class T>
void wgmma_fprop(const ConvShape& s, const Tensor<const T>& x, const T* filters, const Product<T>& p) {
  const std::array<int64_t, 4> extents{s.c, s.axis[2].in, s.axis[1].in, s.n};
  const std::array<uint64_t, 3> strides = byte_strides(x, extents).value();
  uint64_t map_extents[4];
  std::copy(extents.begin(), extents.end(), map_extents);
  WgmmaConv<T> conv{};
  conv.p = p;
  conv.height = s.axis[1].as<int>();
  conv.width = s.axis[2].as<int>();
  conv.channel_slabs = static_cast<int>(ceil_div(s.c, kLineCells));
  int lower[2], upper[2];
  uint32_t steps[4] = {1, 1, 1, 1};
  for (std::size_t i = 0; i < 2; ++i) {
    const Axis& axis = s.axis[2 - i];
    lower[i] = static_cast<int>(axis.input(0, 0));
    upper[i] = static_cast<int>(axis.input(axis.out - 1, 0) - (axis.in - 1));
    steps[1 + i] = static_cast<uint32_t>(axis.stride);
  }
  using Large = WgmmaTile<T, 128>;
  if (!encode_im2col(conv.patches, x.data, map_extents, strides.data(), lower, upper, kLineCells, Large::kTileRows,
                     steps)) {
    throw std::runtime_error("CUDA: the driver refuses the tensor map of the patches");
  }
  if (p.columns > 64) return launch_tiles<T, Large>(conv, s, filters);
  launch_tiles<T, WgmmaTile<T, 64>>(conv, s, filters);
}

template void check_wgmma(const Tensor<const Float16>&, const std::array<int64_t, 4>&);
template void check_wgmma(const Tensor<const BFloat16>&, const std::array<int64_t, 4>&);
template void check_wgmma(const Tensor<const float>&, const std::array<int64_t, 4>&);
template void check_wgmma(const Tensor<const double>&, const std::array<int64_t, 4>&);
template void wgmma_fprop(const ConvShape&, const Tensor<const Float16>&, const Float16*, const Product<Float16>&);
template void wgmma_fprop(const ConvShape&, const Tensor<const BFloat16>&, const BFloat16*, const Product<BFloat16>&);

}  // namespace fastconv::cuda
