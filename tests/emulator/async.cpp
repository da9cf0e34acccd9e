// The state of barriers and the bulk copies under way; as machine.cpp, without the race detector.
#include "async.hpp"

#include "race.hpp"

namespace fastconv::emulator {
namespace {

struct __attribute__((may_alias)) Barrier {
  uint16_t arrivals : 15, phase : 1;
  int16_t pending;  // arrivals until the phase ends
  int32_t bytes;    // that are to come before it does
};
static_assert(sizeof(Barrier) == sizeof(uint64_t));
constexpr unsigned kUninitialised = 0x7fff;  // as shared memory is when a block starts

constexpr unsigned kMaxCopies = 64;
BulkCopy copies[kMaxCopies];
unsigned copy_count = 0;

Barrier& state_of(uint64_t* barrier) {
  if (shared_address(barrier, sizeof(Barrier)) % sizeof(Barrier) != 0) fault("mbarrier: misaligned address");
  auto& state = *reinterpret_cast<Barrier*>(barrier);
  if (state.arrivals == kUninitialised) fault("mbarrier: used before it is initialised");
  return state;
}

// Stands for a phase in the race detector's eyes: who leaves late must not see arrivals at the next one.
[[maybe_unused]] void* phase_key(uint64_t* barrier, unsigned parity) {
  return reinterpret_cast<unsigned char*>(barrier) + parity;
}

void end_phase_if_complete(uint64_t* barrier, Barrier& state) {
  if (state.pending < 0) fault("mbarrier: more arrivals than it was made for");
  if (state.pending > 0 || state.bytes != 0) return;
  state.phase ^= 1;
  state.pending = static_cast<int16_t>(state.arrivals);
  wake(barrier);
}

// Makes one of the copies under way, in an order that a kernel must not count on; false if there are none.
bool make_a_copy() {
  if (copy_count == 0) return false;
  const unsigned chosen = options().order == Order::reverse ? copy_count - 1 : 0;
  const BulkCopy copy = copies[chosen];
  --copy_count;
  for (unsigned i = chosen; i < copy_count; ++i) copies[i] = copies[i + 1];
  __tsan_acquire(copy.to);
  copy.make(copy);
  return true;
}

bool encode_axes(TensorMap& map, int rank, const void* data, const uint64_t* extents, const uint64_t* strides) {
  map = {};
  map.data = static_cast<const unsigned char*>(data);
  map.rank = rank;
  if (reinterpret_cast<std::uintptr_t>(data) % 16 != 0) return false;
  for (int i = 0; i < rank; ++i) {
    const uint64_t stride = i == 0 ? kCellBytes : strides[i - 1];
    if (extents[i] == 0 || extents[i] > uint64_t{1} << 32) return false;
    if (i > 0) {
      const auto below = static_cast<uint64_t>(map.stride[i - 1]);
      if (stride % 16 != 0 || stride >= uint64_t{1} << 40 || stride % below != 0) return false;
      if (stride < below * extents[i - 1]) return false;
    }
    map.extent[i] = static_cast<int64_t>(extents[i]);
    map.stride[i] = static_cast<int64_t>(stride);
  }
  return true;
}

bool line_fits(uint32_t cells) { return cells * kCellBytes <= kSwizzleBytes && cells * kCellBytes % 16 == 0; }

}  // namespace

void init_barrier(uint64_t* barrier, unsigned arrivals) {
  shared_address(barrier, sizeof(Barrier));
  *reinterpret_cast<Barrier*>(barrier) = {static_cast<uint16_t>(arrivals & 0x7fff), 0, static_cast<int16_t>(arrivals),
                                          0};
}

void arrive(uint64_t* barrier, unsigned bytes) {
  Barrier& state = state_of(barrier);
  __tsan_release(phase_key(barrier, state.phase));
  state.bytes += static_cast<int32_t>(bytes);
  --state.pending;
  end_phase_if_complete(barrier, state);
}

void wait_for_phase(uint64_t* barrier, unsigned parity, const Site& site) {
  const Barrier& state = state_of(barrier);
  while (state.phase == parity) {
    if (sleep_until(barrier, site)) continue;
    if (!make_a_copy()) fault("deadlock: a phase of an mbarrier that nobody can end");
  }
  __tsan_acquire(phase_key(barrier, parity));
}

void complete_bytes(uint64_t* barrier, unsigned bytes) {
  Barrier& state = state_of(barrier);
  __tsan_release(phase_key(barrier, state.phase));
  state.bytes -= static_cast<int32_t>(bytes);
  end_phase_if_complete(barrier, state);
}

bool encode_tiled(TensorMap& map, int rank, const void* data, const uint64_t* extents, const uint64_t* strides,
                  const uint32_t* box) {
  if (!encode_axes(map, rank, data, extents, strides) || !line_fits(box[0])) return false;
  for (int i = 0; i < 4; ++i) {
    map.box[i] = i < rank ? box[i] : 1;
    if (map.box[i] == 0 || map.box[i] > 256) return false;
  }
  return true;
}

bool encode_im2col(TensorMap& map, const void* data, const uint64_t* extents, const uint64_t* strides, const int* lower,
                   const int* upper, uint32_t channels, uint32_t pixels, const uint32_t* steps) {
  const auto is_byte = [](int corner) { return corner >= -128 && corner <= 127; };
  if (!encode_axes(map, 4, data, extents, strides) || !line_fits(channels)) return false;
  if (channels > 256 || pixels > 1024 || steps[0] != 1 || steps[3] != 1) return false;
  map.box[0] = channels;
  map.pixels = pixels;
  for (int i = 0; i < 2; ++i) {
    map.lower[i] = lower[i];
    map.upper[i] = upper[i];
    map.step[i] = steps[1 + i];
    if (!is_byte(lower[i]) || !is_byte(upper[i]) || map.step[i] == 0 || map.step[i] > 8) return false;
  }
  return true;
}

void begin_copy(const BulkCopy& copy) {
  if (shared_address(copy.to, kCellBytes) % (8 * kSwizzleBytes) != 0) {
    fault("bulk copy: its destination is not aligned to the swizzle's 1024 bytes");
  }
  if (copy.offset[0] > 255 || copy.offset[1] > 255) fault("bulk copy: an offset in the patch exceeds a byte");
  state_of(copy.barrier);
  if (!options().late_copies) return copy.make(copy);
  if (copy_count == kMaxCopies) fault("bulk copy: too many are under way");
  __tsan_release(copy.to);
  copies[copy_count++] = copy;
}

void check_copied() {
  if (copy_count > 0) fault("a block ended with bulk copies that nobody waited for");
}

}  // namespace fastconv::emulator
