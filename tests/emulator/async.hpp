// Barriers in shared memory that also count bytes (mbarrier), and bulk copies of tensors to shared memory that report
// to them (cp.async.bulk.tensor, "TMA"), after the PTX ISA and the driver's rules for tensor maps. Cells are 16 bits
// wide, the swizzle is that of 128 bytes, and what lies outside the tensor is zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine.hpp"

namespace fastconv::emulator {

void init_barrier(uint64_t* barrier, unsigned arrivals);
void arrive(uint64_t* barrier, unsigned bytes);  // the phase ends with these bytes, and so many arrivals
void wait_for_phase(uint64_t* barrier, unsigned parity, const Site& site);
void complete_bytes(uint64_t* barrier, unsigned bytes);

inline constexpr unsigned kCellBytes = 2, kSwizzleBytes = 128;

// Cells of 128-byte lines: chunks of 16 bytes are exchanged by an exclusive or with the line's number.
inline std::size_t swizzled(std::size_t shared_address) { return shared_address ^ (shared_address >> 3 & 0x70); }

// Extents innermost first; strides in bytes, the first of them a cell's.
struct TensorMap {
  const unsigned char* data;
  int rank;
  int64_t extent[4], stride[4];
  // A tile: a box of cells. im2col: `pixels` times `box[0]` channels of the patches whose first cells lie in the image
  // from `lower` to `upper` beyond its last cell, `step` apart.
  uint32_t box[4];
  int lower[2], upper[2];
  uint32_t step[2], pixels;
};
// False where the driver would refuse: strides are those of the axes after the first.
bool encode_tiled(TensorMap& map, int rank, const void* data, const uint64_t* extents, const uint64_t* strides,
                  const uint32_t* box);
bool encode_im2col(TensorMap& map, const void* data, const uint64_t* extents, const uint64_t* strides, const int* lower,
                   const int* upper, uint32_t channels, uint32_t pixels, const uint32_t* steps);

struct BulkCopy {
  void (*make)(const BulkCopy&);
  TensorMap map;
  unsigned char* to;
  uint64_t* barrier;
  int at[4];
  unsigned offset[2];  // of a patch's cell from its first one
};
void begin_copy(const BulkCopy& copy);
void check_copied();  // all that was begun, at the end of a block

// Writes a copy's cells one after another.
class BulkWriter {
 public:
  explicit BulkWriter(const BulkCopy& copy) : copy_(copy), start_(shared_address(copy.to, kCellBytes)) {}

  void write(const unsigned char* from) {
    unsigned char* const to = copy_.to - start_ + swizzled(start_ + bytes_);
    *reinterpret_cast<uint16_t*>(to) = from == nullptr ? uint16_t{0} : *reinterpret_cast<const uint16_t*>(from);
    bytes_ += kCellBytes;
  }
  void complete() const { complete_bytes(copy_.barrier, bytes_); }

 private:
  const BulkCopy& copy_;
  std::size_t start_;
  unsigned bytes_ = 0;
};

inline const unsigned char* cell_of(const TensorMap& map, const int64_t (&at)[4]) {
  const unsigned char* cell = map.data;
  for (int i = 0; i < map.rank; ++i) {
    if (at[i] < 0 || at[i] >= map.extent[i]) return nullptr;
    cell += at[i] * map.stride[i];
  }
  return cell;
}

inline void make_tiled_copy(const BulkCopy& copy) {
  const TensorMap& map = copy.map;
  BulkWriter writer(copy);
  for (uint32_t k = 0; k < map.box[2]; ++k) {
    for (uint32_t j = 0; j < map.box[1]; ++j) {
      for (uint32_t i = 0; i < map.box[0]; ++i) {
        writer.write(cell_of(map, {copy.at[0] + int64_t{i}, copy.at[1] + int64_t{j}, copy.at[2] + int64_t{k}, 0}));
      }
    }
  }
  writer.complete();
}

// Axes: channel, w, h, image.
inline void make_im2col_copy(const BulkCopy& copy) {
  const TensorMap& map = copy.map;
  BulkWriter writer(copy);
  int64_t first[3] = {copy.at[1], copy.at[2], copy.at[3]};
  for (uint32_t pixel = 0; pixel < map.pixels; ++pixel) {
    for (uint32_t c = 0; c < map.box[0]; ++c) {
      writer.write(
          cell_of(map, {copy.at[0] + int64_t{c}, first[0] + copy.offset[0], first[1] + copy.offset[1], first[2]}));
    }
    for (int axis = 0; axis < 2; ++axis) {  // the next patch, along w, then h, then in the next image
      first[axis] += map.step[axis];
      if (first[axis] <= map.extent[1 + axis] - 1 + map.upper[axis]) break;
      first[axis] = map.lower[axis];
      if (axis == 1) ++first[2];
    }
  }
  writer.complete();
}

}  // namespace fastconv::emulator
