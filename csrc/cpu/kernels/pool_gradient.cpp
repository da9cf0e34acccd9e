// The input gradient of max-pooling, from the taps that the maxima came from.
#include "pool_gradient.hpp"

#include "float_tables.hpp"
#include "prefetch.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

constexpr int kMostTaps = 255;  // of a window: their numbers are bytes, and 255 is none

// What the lanes of a vector read of the taps of a phase.
template <class T>
struct SpreadLanes {
  Lanes<T> of_tap[kMostTaps];

  void begin_at(const SpreadBlock<T>& b, int phase, int64_t first) {
    for (int64_t t = 0; t < b.tap_count[phase]; ++t) {
      const SpreadTap& tap = b.taps[phase][t];
      of_tap[t] = {clamp_lanes<T>(tap.begin - first), clamp_lanes<T>(tap.end - first)};
    }
  }
};

// Adds the gradients of the lanes whose byte is `code`.
template <class T>
void add_where(Vector<T>& sum, Bytes<T, uint8_t> bytes, int32_t code, Vector<T> gradient) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const __mmask16 mask =
        _mm_cmpeq_epi8_mask(reinterpret_cast<__m128i>(bytes), _mm_set1_epi8(static_cast<char>(code)));
    const auto total = reinterpret_cast<__m512>(sum);
    sum = reinterpret_cast<Vector<T>>(_mm512_mask_add_ps(total, mask, total, reinterpret_cast<__m512>(gradient)));
    return;
  }
#endif
  using Codes = decltype(Vector<T>{} < Vector<T>{});
  sum += convert<Codes>(bytes) == Codes{} + code ? gradient : Vector<T>{};
}

// What the taps add to a vector of lanes of one row. Lanes outside a tap read a gradient of zero.
template <class T>
Vector<T> spread_side_by_side(const SpreadBlock<T>& b, int phase, const SpreadLanes<T>& lanes, const T* dy,
                              const uint8_t* offsets) {
  Vector<T> sum{};
  for (int64_t t = 0; t < b.tap_count[phase]; ++t) {
    const SpreadTap& tap = b.taps[phase][t];
    fetch_ahead(dy + tap.dy_offset, 1);
    add_where<T>(sum, lanes.of_tap[t].load_bytes_from(offsets + tap.where_offset), tap.code,
                 lanes.of_tap[t].load_from(dy + tap.dy_offset));
  }
  return sum;
}
// The same of lanes that are not neighbours in memory.
template <class T>
Vector<T> spread_strided(const SpreadBlock<T>& b, int phase, const T* dy, const uint8_t* offsets, int64_t first) {
  Vector<T> sum{};
  for (int64_t t = 0; t < b.tap_count[phase]; ++t) {
    const SpreadTap& tap = b.taps[phase][t];
    for (int i = clamp_lanes<T>(tap.begin - first); i < clamp_lanes<T>(tap.end - first); ++i) {
      if (offsets[tap.where_offset + i * b.where_step] == tap.code) sum[i] += dy[tap.dy_offset + i * b.dy_step];
    }
  }
  return sum;
}

template <class T>
void store_count(T* p, Vector<T> v, int64_t count, int64_t step) {
  if (step != 1) {
    for (int i = 0; i < clamp_lanes<T>(count); ++i) p[i * step] = v[i];
  } else if (count >= kLanes<T>) {
    store<T>(p, v);
  } else if (count > 0) {
    store_lanes<T>(p, v, static_cast<int>(count));
  }
}

template <class T>
void spread_block(const SpreadBlock<T>& b) {
  constexpr int kL = kLanes<T>;
  constexpr int64_t kRows = 16;  // rows of a block that share what is known of a vector's lanes
  const bool side_by_side = b.dy_step == 1 && b.where_step == 1;
  SpreadLanes<T> lanes[2];
  for (int64_t row = 0; row < b.rows; row += kRows) {
    const int64_t end = row + kRows < b.rows ? row + kRows : b.rows;
    for (int64_t first = 0; first < b.lanes[0]; first += kL) {
      for (int phase = 0; phase <= static_cast<int>(b.alternate); ++phase) lanes[phase].begin_at(b, phase, first);
      for (int64_t i = row; i < end; ++i) {
        const T* dy = b.dy + i * b.dy_row + first * b.dy_step;
        const uint8_t* offsets = b.offsets + i * b.where_row + first * b.where_step;
        const auto spread = [&](int phase) {
          return side_by_side ? spread_side_by_side(b, phase, lanes[phase], dy, offsets)
                              : spread_strided(b, phase, dy, offsets, first);
        };
        T* dx = b.dx + i * b.dx_row;
        if (!b.alternate) {
          store_count<T>(dx + first * b.dx_step, spread(0), b.lanes[0] - first, b.dx_step);
          continue;
        }
        const Vector<T> even = spread(0), odd = spread(1);
        const int64_t left = b.lanes[0] + b.lanes[1] - 2 * first;
        store_count<T>(dx + 2 * first, interleave<T>(even, odd, false), left, 1);
        store_count<T>(dx + 2 * first + kL, interleave<T>(even, odd, true), left - kL, 1);
      }
    }
  }
}

template <class T>
constexpr PoolGradientKernels<T> kPoolGradient{spread_block<T>};

}  // namespace

extern const FloatTables<PoolGradientKernels> pool_gradient;
const FloatTables<PoolGradientKernels> pool_gradient{kPoolGradient<float>, kPoolGradient<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
