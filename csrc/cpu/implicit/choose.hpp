// The ways to multiply patches and filters, and which one a convolution of one group takes.
#pragma once

#include "cpu/gemm/filters.hpp"
#include "cpu/pointwise/pointwise.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/call.hpp"
#include "cpu/walk/extents.hpp"

namespace fastconv::cpu::implicit {

inline constexpr Variant kThinnedPlanes{"thinned planes",
                                        "filters of one cell with a stride: the cells that they see are "
                                        "copied to planes of their own"};
inline constexpr Variant kSpreadPlanes{"spread planes",
                                       "every second cell of the result is computed: as planes of its "
                                       "own, then copied"};
inline constexpr Variant kFiltersInPlace{"filters in place",
                                         "few outputs for the filters, which are read where they lie"};
inline constexpr Variant kPixelRows{"pixel rows", "pixels evenly apart are rows of a matrix, read where they lie"};
inline constexpr Variant kPixelPatches{"pixel patches", "channels are contiguous: each tap of a pixel is a run"};
inline constexpr Variant kPlaneRows{"plane rows", "filters of one cell: the planes are the patches"};
inline constexpr Variant kPlanePatches{"plane patches", "channels lie in planes: each tap of a row is a run"};

// Filters of one cell whose outputs all see real cells.
inline bool one_cell(const ConvShape& s) {
  for (const Axis& a : s.axis) {
    if (a.filter > 1 || a.inner_outputs().size() < a.out) return false;
  }
  return true;
}

bool few_pixels(const ConvShape& shape);

// `room`: there may be memory for planes beside the product's own.
template <class T>
Variant choose(const Correlation<T>& c, bool room) {
  const auto& [s, x, w, finish, y] = c;
  const bool channels_last = channels_contiguous(x.stride[1], s.c);
  const bool in_place = few_pixels(s) && !(channels_last && s.taps() == 1) && Filters<T>(s, w, false).contiguous();
  if (!in_place && pointwise::serves(s, x, y)) return pointwise::kFilterLanes;
  if (room && !channels_last && one_cell(s) && !s.pointwise()) return kThinnedPlanes;
  if (room && !channels_last && s.pointwise() && y.stride[4] == 2) return kSpreadPlanes;
  if (in_place) return kFiltersInPlace;
  if (channels_last && s.pointwise() && pixel_step(x, s.n, in_extents(s))) return kPixelRows;
  if (channels_last) return kPixelPatches;
  return kPlanePatches;
}

// dw is most of the memory: patches are packed once for all tasks, in the order of its cells.
inline bool few_pixels_for_filters(const ConvShape& s) {
  return tuning::implicit::kFiltersPerPixel * s.n * s.pixels() < s.k;
}

template <class T>
Variant choose(const Reduction<T>& r, bool room) {
  const auto& [s, dy, x, dw] = r;
  const bool channels_last = channels_contiguous(x.stride[1], s.c);
  if (room && !channels_last && one_cell(s) && !s.pointwise()) return kThinnedPlanes;
  if (pointwise::serves(s, dy, x)) return pointwise::kDotProducts;
  if (channels_last && s.pointwise() && pixel_step(x, s.n, in_extents(s))) return kPixelRows;
  if (channels_last && !(few_pixels_for_filters(s) && s.taps() > 1)) return kPixelPatches;
  if (s.pointwise()) return kPlaneRows;
  return kPlanePatches;
}

}  // namespace fastconv::cpu::implicit
