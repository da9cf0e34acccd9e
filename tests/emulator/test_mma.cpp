// Tensor-core instructions: one tile through the fragments of mma.cuh, against loops; and each way to mix up a fragment
// gives a wrong result.
#include <bit>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "check.hpp"
#include "cuda/gemm/mma.cuh"
#include "report.hpp"

namespace fastconv::cuda {
namespace {

enum class Fault { none, rows_for_terms_of_a, halves_of_b, transposed_sums, wrong_matrices };

constexpr int kRows = 16, kColumns = 8;

template <class T, bool kByTerms>
struct Tile {
  alignas(16) T a[kRows * kMultiplyTerms<T>];  // [row][term], or [term][row]
  alignas(16) T b[kColumns * kMultiplyTerms<T>];
};

// c[16][8] = a b, for a[row][term], or a[term][row] of 16-bit cells, and b[column][term].
template <class T, bool kByTerms>
__global__ void multiply_tile(const T* a, const T* b, float* c, Fault fault) {
  constexpr int kTerms = kMultiplyTerms<T>;
  auto& tile = shared_memory<Tile<T, kByTerms>>();
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  for (int i = lane; i < kRows * kTerms; i += kWarpSize) tile.a[i] = a[i];
  for (int i = lane; i < kColumns * kTerms; i += kWarpSize) tile.b[i] = b[i];
  __syncthreads();
  unsigned left[4], right[4];
  const int row = fault == Fault::wrong_matrices ? lane / 16 * 8 + lane % 8 : lane % 16;
  const int term = (fault == Fault::wrong_matrices ? lane / 8 % 2 : lane / 16) * (kTerms / 2);
  if constexpr (kByTerms) {
    load_matrices<true>(left, &tile.a[(lane / 16 * 8 + lane % 8) * kRows + lane / 8 % 2 * 8]);
  } else {
    load_matrices<false>(left, &tile.a[row * kTerms + term]);
  }
  load_matrices<false>(right, &tile.b[lane % 8 * kTerms + lane / 8 % 2 * (kTerms / 2)]);
  if (fault == Fault::rows_for_terms_of_a) std::swap(left[1], left[2]);
  float sums[4] = {};
  if (fault == Fault::halves_of_b) {
    multiply_add<T>(sums, left, {right[1], right[0]});
  } else {
    multiply_add<T>(sums, left, {right[0], right[1]});
  }
  for (int i = 0; i < 4; ++i) {
    const int row_of_sum = fault == Fault::transposed_sums ? g + i % 2 * 8 : g + i / 2 * 8;
    const int column = fault == Fault::transposed_sums ? 2 * t + i / 2 : 2 * t + i % 2;
    c[row_of_sum * kColumns + column] = sums[i];
  }
}

template <class T>
T cell(int i) {
  return T(static_cast<float>(i * 7 % 11 - 5));
}

template <class T, bool kByTerms>
bool right(Fault fault) {
  constexpr int kTerms = kMultiplyTerms<T>;
  std::vector<T> a(kRows * kTerms), b(kColumns * kTerms);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = cell<T>(static_cast<int>(i));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = cell<T>(static_cast<int>(i * i % 31));
  std::vector<float> c(kRows * kColumns, -1);
  launch(multiply_tile<T, kByTerms>, 1, kWarpSize, sizeof(Tile<T, kByTerms>), a.data(), b.data(), c.data(), fault);
  bool same = true;
  for (std::size_t row = 0; row < kRows; ++row) {
    for (std::size_t column = 0; column < kColumns; ++column) {
      float sum = 0;
      for (std::size_t term = 0; term < kTerms; ++term) {
        const T left = kByTerms ? a[term * kRows + row] : a[row * kTerms + term];
        sum += static_cast<float>(left) * static_cast<float>(b[column * kTerms + term]);
      }
      same = same && c[row * kColumns + column] == sum;
    }
  }
  return same;
}

template <class T>
void check_faults() {
  CHECK((right<T, false>(Fault::none)));
  for (const Fault fault :
       {Fault::rows_for_terms_of_a, Fault::halves_of_b, Fault::transposed_sums, Fault::wrong_matrices}) {
    CHECK((!right<T, false>(fault)), "fault", static_cast<int>(fault));
  }
}

struct Line {
  alignas(16) unsigned char bytes[17 * 16];
};
__global__ void misaligned_line() {
  auto& line = shared_memory<Line>();
  unsigned words[4];
  load_matrices<false>(words, line.bytes + 8);
}

// A ring of three slabs: the copy of slab i + 2 is on its way while slab i is read.
constexpr int kSlabs = 6;
struct Ring {
  float cell[3][kWarpSize];
};
__global__ void read_ring(const float* in, float* out, Fault fault) {
  auto& ring = shared_memory<Ring>();
  const int lane = static_cast<int>(threadIdx.x);
  const auto read = [&](int slab) {
    if (slab < kSlabs) copy_async(&ring.cell[slab % 3][lane], in + slab * kWarpSize + lane, true);
    close_copy_group();
  };
  read(0), read(1);
  float sum = 0;
  for (int slab = 0; slab < kSlabs; ++slab) {
    if (fault == Fault::none) {
      wait_for_copies<1>();
    } else {
      wait_for_copies<2>();
    }
    __syncthreads();
    read(slab + 2);
    sum += ring.cell[slab % 3][kWarpSize - 1 - lane];
  }
  wait_for_copies<0>();
  out[lane] = sum;
}

}  // namespace

TEST(fragments_of_tf32) { check_faults<float>(); }
TEST(fragments_of_float16) { check_faults<Float16>(); }
TEST(fragments_of_bfloat16) { check_faults<BFloat16>(); }

TEST(matrices_transposed_on_the_way) {
  CHECK((right<Float16, true>(Fault::none)));
  CHECK((right<BFloat16, true>(Fault::none)));
  CHECK((!right<Float16, true>(Fault::rows_for_terms_of_a)));
}

TEST(a_line_that_is_not_aligned) {
  const std::string report = test::report_of([] { launch(misaligned_line, 1, kWarpSize, sizeof(Line)); });
  CHECK(report.find("ldmatrix: misaligned") != std::string::npos);
}

TEST(a_ring_that_waits_one_group_short) {
  std::vector<float> in(kSlabs * kWarpSize, 1), out(kWarpSize);
  const auto run = [&](Fault fault) {
    launch(read_ring, 1, kWarpSize, sizeof(Ring), in.data(), out.data(), fault);
    return out[3];
  };
  CHECK_EQUAL(run(Fault::none), float(kSlabs));
#ifdef FASTCONV_EMULATOR_TSAN
  CHECK(test::report_of([&] { run(Fault::halves_of_b); }).find("data race") != std::string::npos);
#else
  CHECK(!(run(Fault::halves_of_b) == float(kSlabs)));  // late copies are not there in time
#endif
}

TEST(rounding_to_tf32) {
  const auto rounded = [](float value) { return std::bit_cast<float>(round_to_tf32(std::bit_cast<unsigned>(value))); };
  CHECK_EQUAL(rounded(1 + 0x1p-11f), 1 + 0x1p-10f);  // a tie goes away from zero
  CHECK_EQUAL(rounded(-1 - 0x1p-11f), -1 - 0x1p-10f);
  CHECK_EQUAL(rounded(1 + 0x1.8p-12f), 1.0f);
  CHECK_EQUAL(rounded(0x1.fffp127f), std::numeric_limits<float>::infinity());
  CHECK(rounded(std::bit_cast<float>(0x7fffffffu)) != rounded(std::bit_cast<float>(0x7fffffffu)));
}

TEST(rounding_to_halves) {
  for (unsigned bits = 0; bits < 0x10000; bits += 37) {
    BFloat16 wide;
    Float16 narrow;
    wide.bits = narrow.bits = static_cast<uint16_t>(bits);
    const auto bf = static_cast<float>(wide), f = static_cast<float>(narrow);
    if (bf == bf) CHECK_EQUAL(BFloat16(bf).bits, wide.bits);
    if (f == f) CHECK_EQUAL(Float16(f).bits, narrow.bits);
  }
  CHECK_EQUAL(static_cast<float>(BFloat16(1 + 0x1p-8f)), 1.0f);  // a tie goes to even
  CHECK_EQUAL(static_cast<float>(BFloat16(1 + 0x1.8p-7f)), 1 + 0x1p-6f);
  CHECK_EQUAL(static_cast<float>(Float16(65520.0f)), std::numeric_limits<float>::infinity());
  const BFloat16 nan(std::bit_cast<float>(0x7f800001u));
  CHECK(static_cast<float>(nan) != static_cast<float>(nan));
}

}  // namespace fastconv::cuda
