// The ways of depthwise convolution. A correlation or a reduction here is that of all groups.
#pragma once

#include <cstddef>
#include <memory>

#include "cpu/runtime/thread_pool.hpp"
#include "cpu/walk/call.hpp"

namespace fastconv::cpu::depthwise {

inline constexpr Variant kPixels{"pixels", "channels are contiguous: lanes are channels"};
inline constexpr Variant kSmallPlanes{"small planes",
                                      "planes are so small that vectors along their rows would be mostly empty: some "
                                      "channels at a time become pixels"};
inline constexpr Variant kPlanes3x3{"3x3 planes", "each row of x is loaded once for all the outputs it is part of"};
inline constexpr Variant kRows{"rows", "any filter: a row of outputs at a time"};
inline constexpr Variant kSpreadPlanes{"spread planes", "3x3 filters with a stride of 2: all four phases at once"};

inline int threads_for(const ConvShape& s) { return cpu::threads_for(s.flops(), kSerialScalarFlops); }

// pixels.cpp
template <class T>
std::unique_ptr<const Job> pixels_job(const Correlation<T>& c, std::size_t limit);
template <class T>
std::unique_ptr<const Job> pixels_job(const Reduction<T>& r, std::size_t limit);
// small_planes.cpp
template <class T>
std::unique_ptr<const Job> small_planes_job(const Correlation<T>& c, std::size_t limit);
template <class T>
std::unique_ptr<const Job> small_planes_job(const Reduction<T>& r, std::size_t limit);
// planes3x3.cpp
template <class T>
std::unique_ptr<const Job> planes3x3_job(const Correlation<T>& c, std::size_t limit);
template <class T>
std::unique_ptr<const Job> planes3x3_job(const Reduction<T>& r, std::size_t limit);
template <class T>
std::unique_ptr<const Job> spread_planes_job(const ConvCall<T>& call, std::size_t limit);
// rows.cpp
template <class T>
std::unique_ptr<const Job> rows_job(const Correlation<T>& c, std::size_t limit);
template <class T>
std::unique_ptr<const Job> rows_job(const Reduction<T>& r, std::size_t limit);

// padding.cpp: after the others, which skip products with zeros of the padding, the NaN that these would be.
template <class T>
std::unique_ptr<const Job> padding_job(const ConvCall<T>& call);
// Whether any tap of any output reads the padding.
bool meets_padding(const ConvShape& s);

}  // namespace fastconv::cpu::depthwise
