// For one group, with F = C/groups * T*R*S filter cells and all pixels N*Z*P*Q of the batch:
//
//   y in channel planes (NCHW)   y[K, pixels] = w[K, F] patches[F, pixels]        vectors run along pixels
//   y with channels last (NHWC)  y[pixels, K] = patches^T[pixels, F] w^T[F, K]    vectors run along channels
//
// The filters are packed once, the patches by each task for its pixels (large filters of one cell the other way round);
// pixels.hpp and plane_patches.hpp say how. Where pixels are few, filters are most of the memory and read too rarely to
// pay for that: the patches are packed once, as planes in either layout, and the micro-kernel reads the filters, rows
// of F, in place.
#include "implicit.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "choose.hpp"
#include "copy_planes.hpp"
#include "cpu/gemm/filters.hpp"
#include "cpu/gemm/product.hpp"
#include "cpu/pointwise/pointwise.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/groups.hpp"
#include "pixels.hpp"
#include "plane_patches.hpp"

namespace fastconv::cpu::implicit {
namespace {

template <class T>
Lattice pixel_lattice(const ConvShape& s, const Tensor<T>& y) {
  return {{s.n, s.axis[0].out, s.axis[1].out, s.axis[2].out}, {y.stride[0], y.stride[2], y.stride[3], y.stride[4]}};
}

// The patches of x as the variant reads them.
template <class T>
std::unique_ptr<const Operand<T>> patches_of(const Variant& variant, const ConvShape& s, const Tensor<const T>& x) {
  if (variant == kPixelRows) return std::make_unique<MatrixOperand<T>>(x.data, *pixel_step(x, s.n, in_extents(s)), 1);
  if (variant == kPixelPatches) return std::make_unique<PixelPatches<T>>(s, x);
  return std::make_unique<PlanePatches<T>>(s, x);
}

// y[K, pixels] = w[K, F] patches[F, pixels], turned where y has its channels last.
template <class T>
Product<T> product_of(const Variant& variant, const Correlation<T>& c) {
  const auto& [s, x, w, finish, y] = c;
  const bool in_place = variant == kFiltersInPlace, pixels = variant == kPixelRows || variant == kPixelPatches;
  Product<T> product;
  product.rows = s.k;
  product.columns = s.n * s.pixels();
  product.terms = s.c * s.taps();
  product.left = std::make_unique<Filters<T>>(s, w, pixels);
  product.right = patches_of(variant, s, x);
  (in_place ? product.share_right : product.share_left) = true;
  product.result = y.data;
  product.row_offsets = Lattice::line(s.k, y.stride[1]);
  product.column_offsets = pixel_lattice(s, y);
  product.row_bias = finish.bias;
  product.relu = finish.relu;
  if (in_place || !channels_contiguous(y.stride[1], s.k) || s.axis[2].out == 1) return product;
  std::swap(product.rows, product.columns);
  std::swap(product.left, product.right);
  std::swap(product.share_left, product.share_right);
  std::swap(product.row_offsets, product.column_offsets);
  std::swap(product.row_bias, product.column_bias);
  // Each task packs some filters for all of a few pixels, or they would all go through the last-level cache.
  const int64_t filter_bytes = product.columns * product.terms * static_cast<int64_t>(sizeof(T));
  if (pixels && s.taps() == 1 && product.rows < product.columns && filter_bytes >= tuning::implicit::kLargeFilters)
    std::swap(product.share_left, product.share_right);
  return product;
}

// A pointwise convolution over planes that are one run each: rows as long as the plane keep panels whole.
template <class T>
void join_plane(Correlation<T>& c) {
  ConvShape& s = c.shape;
  if (!s.pointwise()) return;
  const auto from = spatial_stride(c.x, in_extents(s)), to = spatial_stride(c.y, out_extents(s));
  if (!from || !to) return;
  const int64_t pixels = s.pixels();
  s.axis = {};
  s.axis[2].in = s.axis[2].out = pixels;
  c.x.stride[4] = *from;
  c.y.stride[4] = *to;
}

// One group's convolution.
template <class T>
void plan_one(Correlation<T> c, std::size_t limit, Jobs& jobs, bool room = true) {
  join_plane(c);
  const ConvShape& s = c.shape;
  const std::size_t before = jobs.size();
  const Variant variant = choose(c, room);
  if (variant == pointwise::kFilterLanes) return pointwise::plan(c, limit, jobs);
  try {
    if (variant == kThinnedPlanes) {
      const Planes<T> cells(Planes<T>::kInputs, s.n, s.c, out_extents(s), limit, jobs);
      jobs.push_back(std::make_unique<CopyPlanesJob<T>>(variant, s, s.c, seen_cells(s, c.x), cells.tensor));
      return plan_one<T>({thinned(s), cells.readable(), c.w, c.finish, c.y}, limit - cells.bytes, jobs);
    }
    if (variant == kSpreadPlanes) {
      const Planes<T> cells(Planes<T>::kOutputs, s.n, s.k, out_extents(s), limit, jobs);
      plan_one<T>({s, c.x, c.w, c.finish, cells.tensor}, limit - cells.bytes, jobs);
      return jobs.push_back(std::make_unique<CopyPlanesJob<T>>(variant, s, s.k, cells.readable(), c.y));
    }
  } catch (const WorkspaceExceeded&) {
    jobs.keep(before);
    return plan_one(c, limit, jobs, false);
  }
  jobs.push_back(std::make_unique<ProductJob<T>>(variant, product_of(variant, c), limit, "implicit"));
}

// The operands of dw[K, F] = dy[K, pixels] patches^T[pixels, F].
template <class T>
std::unique_ptr<const Operand<T>> gradients_of(const ConvShape& s, const Tensor<const T>& dy) {
  if (const auto step = pixel_step(dy, s.n, out_extents(s)))
    return std::make_unique<MatrixOperand<T>>(dy.data, dy.stride[1], *step);
  return std::make_unique<PixelRows<T>>(s, dy);
}

template <class T>
std::unique_ptr<const Operand<T>> patch_rows_of(const Variant& variant, const ConvShape& s, const Tensor<const T>& x) {
  if (variant == kPixelRows) return std::make_unique<MatrixOperand<T>>(x.data, 1, *pixel_step(x, s.n, in_extents(s)));
  if (variant == kPixelPatches) return std::make_unique<PixelPatchRows<T>>(s, x);
  if (variant == kPlaneRows) return std::make_unique<PixelRows<T>>(s, x);
  return std::make_unique<PlanePatchRows<T>>(s, x,
                                             few_pixels_for_filters(s) ? s.n * s.pixels() : gemm_kernels<T>().k_block);
}

template <class T>
Product<T> product_of(const Variant& variant, const Reduction<T>& r) {
  const auto& [s, dy, x, dw] = r;
  Product<T> product;
  product.rows = s.k;
  product.columns = s.c * s.taps();
  product.terms = s.n * s.pixels();
  product.left = gradients_of(s, dy);
  product.right = patch_rows_of(variant, s, x);
  product.share_right = few_pixels_for_filters(s);
  product.result = dw.data;
  product.row_offsets = Lattice::line(s.k, dw.stride[0]);
  const auto [t, r_, f] = filter_extents(s);
  if (variant == kPixelRows || variant == kPixelPatches) {
    product.column_offsets = {{t, r_, f, s.c}, {dw.stride[2], dw.stride[3], dw.stride[4], dw.stride[1]}};
  } else {
    product.column_offsets = {{s.c, t, r_, f}, {dw.stride[1], dw.stride[2], dw.stride[3], dw.stride[4]}};
  }
  return product;
}

// One group's weight gradient.
template <class T>
void plan_one(const Reduction<T>& r, std::size_t limit, Jobs& jobs, bool room = true) {
  const ConvShape& s = r.shape;
  const std::size_t before = jobs.size();
  const Variant variant = choose(r, room);
  if (variant == pointwise::kDotProducts) return pointwise::plan(r, limit, jobs);
  if (variant != kThinnedPlanes)
    return jobs.push_back(std::make_unique<ProductJob<T>>(variant, product_of(variant, r), limit, "implicit"));
  try {
    const Planes<T> cells(Planes<T>::kInputs, s.n, s.c, out_extents(s), limit, jobs);
    jobs.push_back(std::make_unique<CopyPlanesJob<T>>(variant, s, s.c, seen_cells(s, r.x), cells.tensor));
    plan_one<T>({thinned(s), r.dy, cells.readable(), r.dw}, limit - cells.bytes, jobs);
  } catch (const WorkspaceExceeded&) {
    jobs.keep(before);
    plan_one(r, limit, jobs, false);
  }
}

template <class T>
void plan(const ConvCall<T>& call, std::size_t limit, Jobs& jobs) {
  if (call.pass == Pass::weight) {
    for_each_reduction(call, jobs, [&](const Reduction<T>& r) { plan_one(r, limit, jobs); });
  } else {
    for_each_correlation(call, jobs, [&](const Correlation<T>& c) { plan_one(c, limit, jobs); });
  }
}

}  // namespace

bool few_pixels(const ConvShape& s) {
  using namespace tuning::implicit;
  return s.n * s.pixels() <=
         std::min(kFewPixels, static_cast<int64_t>(kPixelsPerFilter * static_cast<double>(s.group_k())));
}

template <class T>
const ConvAlgorithm<T>& algorithm() {
  static constexpr Variant kVariants[] = {pointwise::kFilterLanes,
                                          pointwise::kDotProducts,
                                          kThinnedPlanes,
                                          kSpreadPlanes,
                                          kFiltersInPlace,
                                          kPixelRows,
                                          kPixelPatches,
                                          kPlaneRows,
                                          kPlanePatches};
  static constexpr ConvAlgorithm<T> implicit{Algorithm::implicit, kVariants,
                                             [](Pass, const ConvShape&) { return true; }, plan<T>};
  return implicit;
}

template const ConvAlgorithm<float>& algorithm();
template const ConvAlgorithm<double>& algorithm();

}  // namespace fastconv::cpu::implicit
