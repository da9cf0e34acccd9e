// The micro-kernel of the matrix product: tiles of a result, kept in registers.
#include "gemm.hpp"

#include "float_tables.hpp"
#include "prefetch.hpp"
#include "shuffle.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

// A tile is kMr rows of kVectors vectors. Its sums, the vectors of the right operand and a broadcast of the left one
// fill the registers: 28 + 3 of 32, or 12 + 3 of 16.
//
// A left operand by rows makes tiles of fewer rows, kRowsMr, and more vectors, kRowsVectors: its addresses have an
// index, a multiply-add with such an operand counts as two instructions, and so each element should be read once for as
// many as can be.
//
// kBlockBytes are of the terms that a tile sums at once, of one row or column. Longer blocks would reload the sums less
// often. But 6 rows are done with a vector of the right operand so soon that its panel must stay in a first-level cache
// of 32 KB, beside the left one's; 14 rows leave time to stream it from the second-level cache.
constexpr int kVectors = 2;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMr = 14, kRowsMr = 6, kRowsVectors = 4;
constexpr int kBlockBytes = 2048;
#else
constexpr int kMr = 6, kRowsMr = 6, kRowsVectors = 2;
constexpr int kBlockBytes = 1536;
#endif
template <class T>
constexpr int kNr = kVectors * kLanes<T>;

template <class T>
constexpr int kRowsNr = kRowsVectors * kLanes<T>;

template <class T, int kRows, int kColumns>
[[gnu::always_inline]] inline void tile_init(Vector<T> (&c)[kRows][kColumns], const T* init, int64_t stride) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v)
      c[i][v] = init != nullptr ? load(init + i * stride + v * kLanes<T>) : Vector<T>{};
  }
}

// The lines behind a tile's, to which the next one of these rows will be stored: fetched meanwhile, or the stores,
// which are in order, would wait for memory one by one, and all that follows for the stores.
template <class T, int kRows, int kColumns>
[[gnu::always_inline]] inline void fetch_next(const T* out, int64_t out_stride) {
  constexpr int kLine = kLineBytes / sizeof(T), kWidth = kColumns * kLanes<T>;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int at = 2 * kWidth - 1; at >= kWidth; at -= kLine) __builtin_prefetch(out + i * out_stride + at, 1);
  }
}

// c += *a * b. With AVX-512 the multiply-add broadcasts the element itself, as written here: the compiler would take
// one broadcast for all that need it.
template <class T>
[[gnu::always_inline]] inline void add_broadcast(Vector<T>& c, const T* a, const Vector<T>& b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(c) : "m"(*a), "v"(b));
  } else {
    asm("vfmadd231pd %1%{1to8%}, %2, %0" : "+v"(c) : "m"(*a), "v"(b));
  }
#else
  c += *a * b;
#endif
}

// c[kRows][vectors] += *left(k, row) * right(k, vector), in registers from the first k to the last: the loops over it
// must unroll, and the readers be inlined. Two of k at a time halve what the loop itself takes. Where a row of the tile
// is two vectors, each of two multiply-adds reading the element saves an instruction and costs a load: half the rows
// doing so leaves both below what a core shared with another hyperthread can do. Not with kIndexed elements, whose
// address takes a register beside the pointer: to the core those are two instructions again.
template <class T, bool kIndexed, int kRows, int kColumns, class Left, class Right>
[[gnu::always_inline]] inline void tile_sum(int64_t k, Vector<T> (&c)[kRows][kColumns], Left left, Right right) {
  const auto add = [&](int64_t j) __attribute__((always_inline)) {
    Vector<T> b[kColumns];
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v) b[v] = right(j, v);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const T* a = left(j, i);
      c[i][0] += *a * b[0];
#pragma GCC unroll 3
      for (int v = 1; v < kColumns; ++v) {
        if (!kIndexed && i % 2 == 0) {
          add_broadcast<T>(c[i][v], a, b[v]);
        } else {
          c[i][v] += *a * b[v];
        }
      }
    }
  };
  int64_t j = 0;
  for (; j + 2 <= k; j += 2) {
    add(j);
    asm volatile("" ::: "memory");  // no load of the second one before: registers would not do
    add(j + 1);
  }
  if (j < k) add(j);
}

template <class T, int kRows, int kColumns>
[[gnu::always_inline]] inline void tile_finish(Vector<T> (&c)[kRows][kColumns], const Epilogue<T>& epilogue) {
#pragma GCC unroll 4
  for (int v = 0; v < kColumns; ++v) {
    if (epilogue.row_bias != nullptr) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) c[i][v] += epilogue.row_bias[i];
    }
    if (epilogue.col_bias != nullptr) {
      const Vector<T> bias = load(epilogue.col_bias + v * kLanes<T>);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) c[i][v] += bias;
    }
    if (epilogue.relu) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) c[i][v] = c[i][v] < 0 ? Vector<T>{} : c[i][v];  // NaN stays NaN
    }
  }
}

template <class T, int kRows, int kColumns>
[[gnu::always_inline]] inline void tile_store(const Vector<T> (&c)[kRows][kColumns], T* out, int64_t out_stride) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v) store<T>(out + i * out_stride + v * kLanes<T>, c[i][v]);
  }
}

// Row i of a left operand by rows. One pointer for three of them: the others are the row stride, once and twice, away,
// which an address can hold.
template <class T, int kRows>
class LeftRows {
 public:
  LeftRows(const T* a, int64_t stride) : stride_(stride) {
    for (int i = 0; i < (kRows + 2) / 3; ++i) rows_[i] = a + 3 * i * stride;
  }
  const T* operator[](int i) const { return rows_[i / 3] + (i % 3) * stride_; }

 private:
  const T* rows_[(kRows + 2) / 3];
  int64_t stride_;
};

// How the left operand lies: by k, as in a panel, or by rows, kRowPitch or any stride apart.
enum class LeftLayout { kByK, kPitched, kByRows };

template <class T, int kRows, int kColumns, LeftLayout kLeft>
void tile_rows(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, const T* init, T* out,
               int64_t out_stride, const Epilogue<T>& epilogue, const Ahead<T>& ahead) {
  fetch_next<T, kRows, kColumns>(out, out_stride);
  Vector<T> c[kRows][kColumns];
  tile_init<T>(c, init, kLeft == LeftLayout::kByRows ? kRowsNr<T> : kNr<T>);
  const LeftRows<T, kRows> rows(a, a_stride);
  tile_sum<T, kLeft == LeftLayout::kByRows>(
      k, c,
      [&](int64_t j, int i) {
        if constexpr (kLeft == LeftLayout::kByK) return a + j * a_stride + i;
        return kLeft == LeftLayout::kPitched ? a + i * kRowPitch + j : rows[i] + j;
      },
      [&, next = ahead.data, step = ahead.step](int64_t j, int vector) mutable {
        if (vector == 0) {
          __builtin_prefetch(next, 0, kSecondLevel);
          next += step;
        }
        return load(b + j * b_stride + vector * kLanes<T>);
      });
  tile_finish<T>(c, epilogue);
  tile_store<T>(c, out, out_stride);
}

template <class T, int kColumns, LeftLayout kLeft, int kRows = kLeft == LeftLayout::kByRows ? kRowsMr : kMr>
void tile(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, const T* init, T* out,
          int64_t out_stride, int rows, const Epilogue<T>& epilogue, const Ahead<T>& ahead) {
  if (rows == kRows)
    return tile_rows<T, kRows, kColumns, kLeft>(k, a, a_stride, b, b_stride, init, out, out_stride, epilogue, ahead);
  if constexpr (kRows > 1)
    tile<T, kColumns, kLeft, kRows - 1>(k, a, a_stride, b, b_stride, init, out, out_stride, rows, epilogue, ahead);
}

// One column of a product whose left operand lies by rows: a vector of k at a time, its lanes added at the end.
template <class T, int kRows>
void column_rows(int64_t k, const T* a, int64_t a_stride, const T* b, const T* init, T* out, int64_t out_stride,
                 const Epilogue<T>& epilogue) {
  constexpr int kL = kLanes<T>;
  const LeftRows<T, kRows> rows(a, a_stride);
  constexpr int kPadded = (kRows + kL - 1) / kL * kL;
  Vector<T> c[kPadded] = {};
  for (int64_t j = 0; j < k; j += kL) {
    const int count = clamp_lanes<T>(k - j);
    const Vector<T> value = load_first<T>(b + j, count);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) c[i] += load_first<T>(rows[i] + j, count) * value;
  }
  T sums[kPadded];
#pragma GCC unroll 16
  for (int first = 0; first < kRows; first += kL) store<T>(sums + first, lane_sums<T>(c + first));
  for (int i = 0; i < kRows; ++i) {
    T sum = sums[i] + (init != nullptr ? init[i * kRowsNr<T>] : 0);
    if (epilogue.row_bias != nullptr) sum += epilogue.row_bias[i];
    if (epilogue.col_bias != nullptr) sum += *epilogue.col_bias;
    out[i * out_stride] = epilogue.relu && sum < 0 ? 0 : sum;
  }
}

template <class T>
void tile_column(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t, const T* init, T* out,
                 int64_t out_stride, int rows, const Epilogue<T>& epilogue, const Ahead<T>&) {
  if (rows == kRowsMr) return column_rows<T, kRowsMr>(k, a, a_stride, b, init, out, out_stride, epilogue);
  for (int i = 0; i < rows; ++i) {
    const T *first = init != nullptr ? init + i * kRowsNr<T> : nullptr,
            *bias = epilogue.row_bias != nullptr ? epilogue.row_bias + i : nullptr;
    column_rows<T, 1>(k, a + i * a_stride, a_stride, b, first, out + i * out_stride, out_stride,
                      {bias, epilogue.col_bias, epilogue.relu});
  }
}

template <class T, int kRows = kMr>
void tile_packing(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* panel, const T* init,
                  T* out, int64_t out_stride, int rows, const Epilogue<T>& epilogue) {
  if (rows != kRows) {
    if constexpr (kRows > 1)
      tile_packing<T, kRows - 1>(k, a, a_stride, b, b_stride, panel, init, out, out_stride, rows, epilogue);
    return;
  }
  constexpr int kL = kLanes<T>;
  fetch_next<T, kRows, kVectors>(out, out_stride);
  Vector<T> c[kRows][kVectors];
  tile_init<T>(c, init, kNr<T>);
  tile_sum<T, false>(
      k, c, [&](int64_t j, int i) { return a + j * a_stride + i; },
      [&](int64_t j, int vector) {
        const T* row = b + j * b_stride + vector * kL;
        if (vector % (kLineBytes / kVectorBytes) == 0) __builtin_prefetch(row + kFetchedBytes / sizeof(T));
        const Vector<T> value = load(row);
        store<T>(panel + j * kNr<T> + vector * kL, value);
        return value;
      });
  tile_finish<T>(c, epilogue);
  tile_store<T>(c, out, out_stride);
}

template <class T, int kColumns, int kRows = kMr>
void tile_scattered(int64_t k, const T* a, int64_t a_stride, const int32_t* offsets, const T* b, const T* init, T* out,
                    int64_t out_stride, int rows, const Epilogue<T>& epilogue, const Ahead<T>& ahead) {
  if (rows != kRows) {
    if constexpr (kRows > 1)
      tile_scattered<T, kColumns, kRows - 1>(k, a, a_stride, offsets, b, init, out, out_stride, rows, epilogue, ahead);
    return;
  }
  Vector<T> c[kRows][kColumns];
  tile_init<T>(c, init, kNr<T>);
  const LeftRows<T, kRows> pixels(a, a_stride);
  tile_sum<T, true>(
      k, c, [&](int64_t j, int i) { return pixels[i] + offsets[j]; },
      [&, next = ahead.data, step = ahead.step](int64_t j, int vector) mutable {
        if (vector == 0) {
          __builtin_prefetch(next);
          next += step;
        }
        return load(b + (j * kColumns + vector) * kLanes<T>);
      });
  tile_finish<T>(c, epilogue);
  tile_store<T>(c, out, out_stride);
}

template <class T, int kRows = kMr>
void tile_planes(int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_next, const int32_t* offsets, T* out,
                 int64_t out_stride, int64_t out_next, int rows, int lanes, const Epilogue<T>& epilogue) {
  if (rows != kRows) {
    if constexpr (kRows > 1) {
      tile_planes<T, kRows - 1>(k, a, a_stride, b, b_next, offsets, out, out_stride, out_next, rows, lanes, epilogue);
    }
    return;
  }
  fetch_next<T, kRows, 1>(out, out_stride);
  fetch_next<T, kRows, 1>(out + out_next, out_stride);
  Vector<T> c[kRows][kVectors];
  tile_init<T>(c, nullptr, 0);
  tile_sum<T, false>(
      k, c, [&](int64_t j, int i) { return a + j * a_stride + i; },
      [&](int64_t j, int vector) { return load(b + offsets[j] + vector * b_next); });
  tile_finish<T>(c, epilogue);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      T* row = out + i * out_stride + v * out_next;
      if (lanes == kLanes<T>) {
        store<T>(row, c[i][v]);
      } else {
        store_lanes<T>(row, c[i][v], lanes);
      }
    }
  }
}

// Products of rows with k along the vectors: kDotRows rows of a by kDotCols of b, as many sums as fit the registers
// with a vector of each row of a and one of b. 24 + 5 of 32, or 12 + 4 of 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kDotRows = 4, kDotCols = 6;
#else
constexpr int kDotRows = 3, kDotCols = 4;
#endif

template <class T>
void dot(int64_t images, int64_t pixels, const T* const* a, int64_t a_image, const T* const* b, int64_t b_image,
         int64_t a_ahead, int64_t b_ahead, T* sums) {
  constexpr int kL = kLanes<T>, kCount = kDotRows * kDotCols;
  Vector<T> c[kCount] = {};
  const auto add = [&](int64_t a_at, int64_t b_at, auto load_at) __attribute__((always_inline)) {
    Vector<T> values[kDotRows];
#pragma GCC unroll 4
    for (int i = 0; i < kDotRows; ++i) values[i] = load_at(a[i] + a_at);
#pragma GCC unroll 6
    for (int j = 0; j < kDotCols; ++j) {
      const Vector<T> value = load_at(b[j] + b_at);
#pragma GCC unroll 4
      for (int i = 0; i < kDotRows; ++i) c[j * kDotRows + i] += values[i] * value;
    }
  };
  constexpr int kLine = kLineBytes / kVectorBytes;  // vectors
  const int64_t whole = pixels / (kLine * kL) * (kLine * kL);
  for (int64_t n = 0; n < images; ++n) {
    int64_t a_at = n * a_image, b_at = n * b_image;
    for (const int64_t end = a_at + whole; a_at < end; a_at += kLine * kL, b_at += kLine * kL) {
#pragma GCC unroll 4
      for (int i = 0; i < kDotRows; ++i) __builtin_prefetch(a[i] + a_at + a_ahead);
      if (b_ahead != 0) {
#pragma GCC unroll 6
        for (int j = 0; j < kDotCols; ++j) __builtin_prefetch(b[j] + b_at + b_ahead);
      }
#pragma GCC unroll 4
      for (int v = 0; v < kLine; ++v) add(a_at, b_at, [&](const T* row) { return load(row + v * kL); });
    }
    for (int64_t left = pixels - whole; left > 0; left -= kL, a_at += kL, b_at += kL) {
      const int count = clamp_lanes<T>(left);
      add(a_at, b_at, [&](const T* row) { return load_first<T>(row, count); });
    }
  }
#pragma GCC unroll 12
  for (int first = 0; first < kCount; first += kL) {
    Vector<T> rows[kL];
#pragma GCC unroll 16
    for (int i = 0; i < kL; ++i) rows[i] = first + i < kCount ? c[first + i] : Vector<T>{};
    const int count = kCount - first < kL ? kCount - first : kL;
    store_lanes<T>(sums + first, load_first<T>(sums + first, count) + lane_sums<T>(rows), count);
  }
}

// Null where registers are too few for so many vectors.
template <class T, int kColumns>
constexpr typename GemmKernels<T>::Tile by_rows() {
  if constexpr (kColumns <= kRowsVectors) return tile<T, kColumns, LeftLayout::kByRows>;
  return nullptr;
}
template <class T>
constexpr GemmKernels<T> kGemm{kMr,
                               kNr<T>,
                               kRowsMr,
                               kRowsNr<T>,
                               kBlockBytes / sizeof(T),
                               tile<T, kVectors, LeftLayout::kByK>,
                               tile<T, 1, LeftLayout::kByK>,
                               tile<T, kVectors, LeftLayout::kPitched>,
                               {tile_column<T>, by_rows<T, 1>(), by_rows<T, 2>(), by_rows<T, 3>(), by_rows<T, 4>()},
                               tile_scattered<T, kVectors>,
                               tile_scattered<T, 1>,
                               tile_packing<T>,
                               tile_planes<T>,
                               dot<T>,
                               kDotRows,
                               kDotCols};

}  // namespace

extern const FloatTables<GemmKernels> gemm;
const FloatTables<GemmKernels> gemm{kGemm<float>, kGemm<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
