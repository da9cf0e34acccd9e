// Max-pooling.
#include "pool.hpp"

#include "prefetch.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

template <class T>
constexpr Lane<T> lowest() {
  if constexpr (static_cast<T>(0.5) != 0) {
    return static_cast<T>(-__builtin_inf());
  } else if constexpr (static_cast<T>(-1) > 0) {
    return 0;
  } else {
    return static_cast<T>(T{1} << (8 * sizeof(T) - 1));
  }
}

template <class T>
using Codes = decltype(Vector<Lane<T>>{} < Vector<Lane<T>>{});  // integers as wide as the lanes of T

// A whole vector of lanes from as many elements, side by side: bytes are widened.
template <class T>
Vector<Lane<T>> load_side_by_side(const T* src) {
  if constexpr (sizeof(T) > 1) {
    return load(src);
  } else {
    return convert<Vector<int32_t>>(*reinterpret_cast<const Bytes<int32_t, T>*>(src));
  }
}
template <class T>
Vector<Lane<T>> load_whole(const T* src, int64_t step) {
  constexpr int kL = kLanes<Lane<T>>;
  fetch_ahead(src, step);
  if (step == 1) return load_side_by_side(src);
  if (step == 2) return even_lanes<Lane<T>>(load_side_by_side(src), load_side_by_side(src + kL));
  Vector<Lane<T>> v{};
  for (int i = 0; i < kL; ++i) v[i] = src[i * step];
  return v;
}

// The lanes of a row's last vector, of which every tap reads the same, with a step of 1 or 2.
template <class T>
struct Tail {
  Lanes<T> low, high;

  Tail(int count, int64_t step)
      : low(0, clamp_lanes<T>((count - 1) * step + 1)), high(0, clamp_lanes<T>((count - 1) * step + 1 - kLanes<T>)) {}
  Vector<T> load_from(const T* src, int64_t step) const {
    fetch_ahead(src, step);
    return step == 1 ? low.load_from(src) : even_lanes<T>(low.load_from(src), high.load_from(src + kLanes<T>));
  }
  // Half a vector of a row by two, and half of another.
  Vector<T> load_two_rows(const T* src, int64_t row) const {
    fetch_ahead(src, 1);
    fetch_ahead(src + row, 1);
    return even_lanes<T>(low.load_from(src), low.load_from(src + row));
  }
};

// load_tap, of any type.
template <class T>
Vector<Lane<T>> load_ragged(const T* base, const RowTap& tap, int64_t first, int64_t step) {
  if constexpr (sizeof(T) > 1) {
    return load_tap(base, tap, first, step);
  } else {
    const T* src = base + tap.offset + first * step;
    const int begin = clamp_lanes<int32_t>(tap.begin - first), end = clamp_lanes<int32_t>(tap.end - first);
    Vector<int32_t> v{};
    for (int i = begin; i < end; ++i) v[i] = src[i * step];
    return v;
  }
}

template <class T>
struct Best {
  Vector<Lane<T>> value = Vector<Lane<T>>{} + lowest<T>();
  Codes<T> code = Codes<T>{} - 1;

  void take(Codes<T> lanes, Vector<Lane<T>> v, int32_t tap_code) {
    value = lanes ? v : value;
    code = lanes ? Codes<T>{} + tap_code : code;
  }
  Best second_half() const {
    Codes<T> lanes{};
    for (int i = 0; i < kLanes<Lane<T>>; ++i) lanes[i] = i ^ (kLanes<Lane<T>> / 2);
    return {__builtin_shuffle(value, lanes), __builtin_shuffle(code, lanes)};
  }
};

// The maxima of a vector of lanes, all of which read real cells at every tap: load(tap) is what they read. A NaN stays
// once it is the best, which makes each tap wait for two comparisons; so it is looked for beside them, and if there is
// one, all is done again.
template <class T, bool kNan = false, class Load>
[[gnu::always_inline]] inline Best<T> maxima_inside(const MaxBlock<T>& b, Load load) {
  Best<T> best{load(b.taps[0]), Codes<T>{} + b.codes[0]};
  Codes<T> nan = best.value != best.value;
  for (int64_t t = 1; t < b.tap_count; ++t) {
    const Vector<Lane<T>> value = load(b.taps[t]);
    best.take(kNan ? ~(value <= best.value) & (best.value == best.value) : value > best.value, value, b.codes[t]);
    nan = value != value ? Codes<T>{} - 1 : nan;
  }
  if constexpr (!kNan && static_cast<T>(0.5) != 0) {
    if (any(nan)) return maxima_inside<T, true>(b, load);
  }
  return best;
}
template <class T>
Best<T> maxima_at_edge(const MaxBlock<T>& b, const T* x, int64_t first) {
  using Code = decltype(Codes<T>{}[0] + 0);
  Codes<T> lanes{};
  for (int i = 0; i < kLanes<Lane<T>>; ++i) lanes[i] = i;
  Best<T> best;
  for (int64_t t = 0; t < b.tap_count; ++t) {
    const RowTap& tap = b.taps[t];
    const Codes<T> real = (lanes >= static_cast<Code>(clamp_lanes<Lane<T>>(tap.begin - first))) &
                          (lanes < static_cast<Code>(clamp_lanes<Lane<T>>(tap.end - first)));
    const Vector<Lane<T>> value = load_ragged(x, tap, first, b.x_step);
    best.take(real & ((~(value <= best.value) & (best.value == best.value)) | (best.code < 0)), value, b.codes[t]);
  }
  return best;
}

// The first `count` lanes, as bytes.
template <class Byte, class V>
void store_bytes(Byte* p, V v, int count) {
  constexpr int kL = sizeof(V) / sizeof(v[0]);
  typedef Byte Bytes [[gnu::vector_size(kL), gnu::aligned(1), gnu::may_alias]];
  const Bytes bytes = convert<Bytes>(v);
  if (count == kL) {
    *reinterpret_cast<Bytes*>(p) = bytes;
    return;
  }
#if defined(__AVX512F__)
  if constexpr (kL == 16) {
    _mm_mask_storeu_epi8(p, static_cast<__mmask16>(0xFFFFu >> (16 - count)), reinterpret_cast<__m128i>(bytes));
    return;
  }
#endif
  if constexpr (kL == 8) {  // by halves of what is left
    uint64_t rest = reinterpret_cast<uint64_t>(bytes);
#pragma GCC unroll 3
    for (int part = 4; part > 0; part /= 2) {
      if ((count & part) == 0) continue;
      __builtin_memcpy(p, &rest, part);
      p += part;
      rest >>= 8 * part;
    }
    return;
  }
  for (int i = 0; i < count; ++i) p[i] = bytes[i];
}

template <class T>
void store_values(T* y, Vector<Lane<T>> v, int count) {
  if constexpr (sizeof(T) == 1) {
    store_bytes(y, v, count);
  } else if (count == kLanes<T>) {
    store<T>(y, v);
  } else {
    store_lanes<T>(y, v, count);
  }
}

// Codes as indices: plus index + lane * step, -1 for none.
template <class V>
void store_indices(int64_t* out, V codes, int64_t index, int64_t step, int count) {
  constexpr int kL = sizeof(V) / sizeof(codes[0]), kHalf = kLanes<int64_t>;
  using Code = decltype(codes[0] + 0);
  typedef Code Half [[gnu::vector_size(kHalf * sizeof(Code)), gnu::aligned(1), gnu::may_alias]];
  Vector<int64_t> lane{};
  for (int i = 0; i < kHalf; ++i) lane[i] = i;
  for (int first = 0; first < kL && first < count; first += kHalf) {
    const Vector<int64_t> code =
        __builtin_convertvector(reinterpret_cast<const Half*>(&codes)[first / kHalf], Vector<int64_t>);
    const Vector<int64_t> found = code + (lane + first) * step + index;
    store_values<int64_t>(out + first, code < 0 ? Vector<int64_t>{} - 1 : found, clamp_lanes<int64_t>(count - first));
  }
}

// One row of a block.
template <class T>
struct MaxRow {
  const T* x;
  T* y;
  int64_t where, index;

  MaxRow(const MaxBlock<T>& b, int64_t plane, int64_t row)
      : x(b.x + plane * b.x_plane + row * b.x_row),
        y(b.y + plane * b.y_plane + row * b.y_row),
        where(plane * b.where_plane + row * b.where_row),
        index(b.index + row * b.index_row) {}

  [[gnu::always_inline]] void store(const MaxBlock<T>& b, int64_t first, Best<T> best, int count) const {
    store_values<T>(y + first, best.value, count);
    fetch_ahead(y + first, 1);
    if (b.rectified) best.code = best.value > 0 ? best.code : Codes<T>{} - 1;
    if (b.offsets != nullptr) store_bytes(b.offsets + where + first, best.code, count);
    if (b.indices != nullptr) {
      store_indices(b.indices + where + first, best.code, index + first * b.index_step, b.index_step, count);
      fetch_ahead(b.indices + where + first, 2);
    }
  }
};

template <class T>
void max_block(const MaxBlock<T>& b) {
  constexpr int kL = kLanes<Lane<T>>;
  constexpr bool kMasks = sizeof(T) > 1;                          // there are loads of some lanes
  const int64_t step = b.x_step, last = (b.lanes - 1) / kL * kL;  // the first lane of the last vector
  int64_t begin = b.tap_count == 0 ? b.lanes : 0, end = b.lanes;
  for (int64_t t = 0; t < b.tap_count; ++t) {
    begin = b.taps[t].begin > begin ? b.taps[t].begin : begin;
    end = b.taps[t].end < end ? b.taps[t].end : end;
  }
  const Tail<Lane<T>> tail(static_cast<int>(b.lanes - last), step);
  const int64_t whole = kL + (step == 2 ? 1 : 0);  // loads by two end one element after the last lane's
  const bool all_real = begin == 0 && end == b.lanes;
  const bool two_rows = kMasks && all_real && step == 2 && b.lanes <= kL / 2;  // fit a vector
  for (int64_t plane = 0; plane < b.planes; ++plane) {
    for (int64_t i = 0; i < b.rows; ++i) {
      const MaxRow<T> row(b, plane, i);
      if constexpr (kMasks) {
        if (two_rows && i + 1 < b.rows) {
          const auto load = [&](const RowTap& tap) { return tail.load_two_rows(row.x + tap.offset, b.x_row); };
          const Best<T> best = maxima_inside(b, load);
          row.store(b, 0, best, static_cast<int>(b.lanes));
          MaxRow<T>(b, plane, ++i).store(b, 0, best.second_half(), static_cast<int>(b.lanes));
          continue;
        }
      }
      for (int64_t first = 0; first < b.lanes; first += kL) {
        const T* from = row.x + first * step;
        Best<T> best;
        if (begin <= first && first + whole <= end) {
          best = maxima_inside(b, [&](const RowTap& tap) { return load_whole(from + tap.offset, step); });
        } else if (kMasks && begin <= first && end == b.lanes && (step == 1 || step == 2)) {
          if constexpr (kMasks)
            best = maxima_inside(b, [&](const RowTap& tap) { return tail.load_from(from + tap.offset, step); });
        } else {
          best = maxima_at_edge(b, row.x, first);
        }
        row.store(b, first, best, clamp_lanes<Lane<T>>(b.lanes - first));
      }
    }
  }
}

template <class T>
constexpr PoolKernels<T> kPool{max_block<T>};

}  // namespace

extern const PoolTables pool;
const PoolTables pool{kPool<float>, kPool<double>, kPool<int8_t>, kPool<uint8_t>, kPool<int32_t>, kPool<int64_t>};

}  // namespace fastconv::cpu::FASTCONV_ISA
