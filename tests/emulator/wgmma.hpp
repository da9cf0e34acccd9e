// Products of a warpgroup, 64 rows by kColumns by 16 terms of 16-bit cells, after "Asynchronous Warpgroup Level Matrix
// Instructions" of the PTX ISA. Operands are read when the product is made: late, that is when it is waited for.
#pragma once

#include "async.hpp"
#include "mma.hpp"

namespace fastconv::emulator {

// 16 cells along the terms of one line of an operand that lies by terms, as its descriptor says: address, distance of
// groups of eight lines, and swizzle.
template <class T>
void load_line(uint64_t descriptor, unsigned line, float (&cells)[16]) {
  if (descriptor >> 62 != 1) fault("wgmma: not the 128-byte swizzle");
  if ((descriptor >> 49 & 7) != 0) fault("wgmma: a base offset");
  const auto bytes_at = [&](int bit) { return static_cast<std::size_t>(descriptor >> bit & 0x3fff) << 4; };
  const std::size_t start = bytes_at(0) + line / 8 * bytes_at(32) + line % 8 * kSwizzleBytes;
  const auto* const memory = static_cast<const unsigned char*>(shared_memory());
  for (unsigned half = 0; half < 2; ++half) {
    const unsigned char* const chunk = memory + swizzled(start + 16 * half);
    shared_address(chunk, 16);
    for (unsigned i = 0; i < 8; ++i) {
      cells[8 * half + i] = cell_of<T>(reinterpret_cast<const uint16_t*>(chunk)[i], 0);
    }
  }
}

template <class T, int kColumns>
void make_product(const Task& task) {
  auto* const sums = static_cast<float (*)[4]>(task.to);
  const unsigned lane = lane_index(), row = thread_number() / kWarp % 4 * 16 + lane / 4;
  float a[2][16], b[16];
  for (unsigned i = 0; i < 2; ++i) load_line<T>(task.operands[0], row + 8 * i, a[i]);
  for (unsigned j = 0; j < kColumns / 4; ++j) {
    load_line<T>(task.operands[1], j / 2 * 8 + lane % 4 * 2 + j % 2, b);
    for (unsigned i = 0; i < 2; ++i) {
      float& cell = sums[j / 2][i * 2 + j % 2];
      double sum = static_cast<double>(cell);
      for (unsigned term = 0; term < 16; ++term) sum += static_cast<double>(a[i][term]) * static_cast<double>(b[term]);
      cell = static_cast<float>(sum);
    }
  }
}

template <class T, int kColumns>
void begin_product(float (&sums)[kColumns / 8][4], uint64_t a, uint64_t b, const Site& site) {
  static const char kind{};
  struct Operands {
    uint64_t a, b;
  };
  collective<char>(
      &kind, ~0u, Operands{a, b},
      [](unsigned lane, auto operands_of) {
        if (operands_of(lane).a != operands_of(0).a || operands_of(lane).b != operands_of(0).b) {
          fault("wgmma: descriptors differ within a warp");
        }
        return char{};
      },
      site);
  const Task product{make_product<T, kColumns>, sums, nullptr, {a, b}};
  if (!defer(Work::products, product)) product.make(product);
}

}  // namespace fastconv::emulator
