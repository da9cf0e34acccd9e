#include "direct.hpp"

#include "cpu/runtime/isa.hpp"
#include "cpu/tuning.hpp"
#include "cpu/walk/groups.hpp"
#include "jobs.hpp"

namespace fastconv::cpu::direct {
namespace {

using namespace tuning::direct;

// Whether a row of outputs fills that part of its vectors.
template <class T>
bool fills(const ConvShape& s, tuning::Ratio part) {
  const int64_t lanes = vector_lanes<T>(), out = s.axis[2].out;
  return tuning::reaches(out, part, ceil_div(out, lanes) * lanes);
}

template <class T>
void plan_one(const Correlation<T>& c, std::size_t limit, Jobs& jobs) {
  const Variant variant = choose(c);
  jobs.push_back(variant == kPlanes ? planes_job(c, limit) : staged_job(variant, c, limit));
}

template <class T>
void plan_one(const Reduction<T>& r, std::size_t limit, Jobs& jobs) {
  jobs.push_back(choose(r) == kDotProducts ? dot_products_job(r, limit) : staged_patches_job(r, limit));
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

template <class T>
Variant choose(const Correlation<T>& c) {
  const ConvShape& s = c.shape;
  const int64_t lanes = vector_lanes<T>();
  const Axis& width = s.axis[2];
  if (c.x.stride[4] == 1 && c.y.stride[4] == 1) {
    if (tuning::within(s.k, kFewFilters, lanes)) return kPlanes;
    const bool long_rows = width.stride == 1 ? fills<T>(s, kFairUse) : tuning::reaches(width.out, kStridedRow, lanes);
    if (s.k <= lanes && long_rows) return kPlanes;
    if (s.c * s.taps() <= kFewCells && fills<T>(s, kGoodUse)) return kPlanes;
  }
  if (s.c <= kFewChannels && c.x.stride[4] == 1) return kStagedPlanes;
  return kStagedPixels;
}

// With 16 registers the tiles of dot products are small: better than panels three quarters of which are empty, not than
// full ones.
template <class T>
Variant choose(const Reduction<T>& r) {
  const ConvShape& s = r.shape;
  const GemmKernels<T>& gemm = gemm_kernels<T>();
  const int64_t cells = s.c * s.taps();
  if (r.x.stride[4] == 1 && r.dy.stride[4] == 1) {
    const bool empty_panels = tuning::within(s.k, kFewPanelFilters, gemm.nr);
    if (empty_panels && cells <= kFewCells && fills<T>(s, kFairUse)) return kDotProducts;
    const bool large_tiles = gemm.dot_rows * gemm.dot_cols >= kMinDotSums;
    if (large_tiles && cells <= kFewDotCells && fills<T>(s, kGoodUse)) return kDotProducts;
  }
  return kStagedPatches;
}

bool serves(const ConvShape& s) {
  const auto& [depth, height, width] = s.axis;
  double cells = static_cast<double>(depth.filter) * static_cast<double>(s.group_c());
  cells *= static_cast<double>(height.window()) * static_cast<double>(width.window());
  return cells <= kMaxWindow;
}

template <class T>
const ConvAlgorithm<T>& algorithm() {
  static constexpr Variant kVariants[] = {kPlanes, kStagedPlanes, kStagedPixels, kDotProducts, kStagedPatches};
  static constexpr ConvAlgorithm<T> direct{Algorithm::direct, kVariants,
                                           [](Pass, const ConvShape& s) { return serves(s); }, plan<T>};
  return direct;
}

template const ConvAlgorithm<float>& algorithm();
template const ConvAlgorithm<double>& algorithm();

}  // namespace fastconv::cpu::direct
