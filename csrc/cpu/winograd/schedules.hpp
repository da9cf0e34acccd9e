// The orders in which Winograd's products are made, and their jobs.
#pragma once

#include <cstddef>
#include <memory>

#include "cpu/walk/call.hpp"
#include "tiles.hpp"

namespace fastconv::cpu::winograd {

enum class Schedule {
  tiles,    // forward.cpp
  filters,  // filters.cpp
  adjoint,  // adjoint.cpp
  parts,    // wgrad.cpp, as are the next two
  panels,
  blocks,
};

// Named by what a tile is and by the schedule: "F(4x4, 3x3) by tiles".
Variant variant_of(const TileGrid& grid, Schedule schedule);

// Whether a schedule pays; by filters and by blocks serve every shape.
template <class T>
bool tiles_pay(const ConvShape& shape);
template <class T>
bool adjoint_pays(const ConvShape& shape);

template <class T>
std::unique_ptr<const Job> tiles_job(const Correlation<T>& call, std::size_t workspace_limit);
template <class T>
std::unique_ptr<const Job> filters_job(const Correlation<T>& call, std::size_t workspace_limit);
template <class T>
std::unique_ptr<const Job> adjoint_job(const ConvCall<T>& call, std::size_t workspace_limit);
template <class T>
std::unique_ptr<const Job> weight_job(const Reduction<T>& call, std::size_t workspace_limit);

}  // namespace fastconv::cpu::winograd
