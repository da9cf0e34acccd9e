// The ways of direct convolution for one group, and which one it takes.
#pragma once

#include <cstddef>
#include <memory>

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::direct {

inline constexpr Variant kPlanes{"planes", "few filters, or few cells in each: lanes are outputs of a row"};
inline constexpr Variant kStagedPlanes{"staged planes",
                                       "a pixel's channels are a fraction of a vector: copied as planes"};
inline constexpr Variant kStagedPixels{"staged pixels", "channels fill vectors: the copy has them last"};
inline constexpr Variant kDotProducts{"dot products", "rows of few cells and filters are multiplied as they lie"};
inline constexpr Variant kStagedPatches{"staged patches", "the copy's patches are as good as packed for the product"};

template <class T>
Variant choose(const Correlation<T>& c);
template <class T>
Variant choose(const Reduction<T>& r);

// staged_pixels.cpp: kStagedPlanes and kStagedPixels
template <class T>
std::unique_ptr<const Job> staged_job(const Variant& variant, const Correlation<T>& c, std::size_t limit);
// staged_patches.cpp
template <class T>
std::unique_ptr<const Job> staged_patches_job(const Reduction<T>& r, std::size_t limit);
// planes.cpp
template <class T>
std::unique_ptr<const Job> planes_job(const Correlation<T>& c, std::size_t limit);
template <class T>
std::unique_ptr<const Job> dot_products_job(const Reduction<T>& r, std::size_t limit);

}  // namespace fastconv::cpu::direct
