// Filters of one cell, where there is a better way than a product of packed panels.
#pragma once

#include "cpu/walk/call.hpp"

namespace fastconv::cpu::pointwise {

inline constexpr Variant kFilterLanes{"filter lanes",
                                      "filters of one cell over planes of few pixels: vectors run along "
                                      "the filters"};
inline constexpr Variant kDotProducts{"dot products",
                                      "few filters or channels of one cell: rows of planes are multiplied "
                                      "where they lie"};

// The convolution of one group.
template <class T>
bool serves(const ConvShape& shape, const Tensor<const T>& x, const Tensor<T>& y);
template <class T>
void plan(const Correlation<T>& c, std::size_t workspace_limit, Jobs& jobs);

// Its weight gradient.
template <class T>
bool serves(const ConvShape& shape, const Tensor<const T>& dy, const Tensor<const T>& x);
template <class T>
void plan(const Reduction<T>& r, std::size_t workspace_limit, Jobs& jobs);

}  // namespace fastconv::cpu::pointwise
