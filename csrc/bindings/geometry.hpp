// The factory of geometry: from a user's shapes and keywords to a ConvShape or PoolShape, or an error that quotes them.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "checks.hpp"

namespace fastconv::bindings {

// "valid", "same", "same_lower", or (before, after) for each spatial axis.
using Padding = std::variant<std::string, std::vector<std::pair<int64_t, int64_t>>>;

// Where the expected shape of an array comes from, in messages.
inline constexpr const char* kOfGeometry = "the geometry's";

// Shapes are the user's, in the order of `layout`.
struct ConvGeometry {
  ConvShape shape;
  bool channels_last = false;
  Dims x, w, y;

  ConvGeometry(Dims x_shape, Dims w_shape, const Dims& stride, const Padding& padding, const Dims& dilation,
               int64_t groups, const std::string& layout);
  // The convolution whose input gradient is a transposed convolution of x by w (C, K/groups, ...): y is the shape of
  // that x, and x that of its result.
  static ConvGeometry transposed(const Dims& x_shape, const Dims& w_shape, const Dims& stride, const Padding& padding,
                                 const Dims& output_padding, const Dims& dilation, int64_t groups,
                                 const std::string& layout);

 private:
  ConvGeometry() = default;
};

struct PoolGeometry {
  PoolShape shape;
  bool channels_last;
  Dims x, y;

  PoolGeometry(Dims x_shape, const Dims& kernel_size, const Dims& stride, const Padding& padding, const Dims& dilation,
               bool ceil_mode, const std::string& layout);
  // Windows that share the input evenly.
  PoolGeometry(Dims x_shape, const Dims& output_size, const std::string& layout);

  void check_max_pool() const;  // what a maximum asks of its windows beyond that
  void check_offsets() const;   // and what bytes that number their taps ask
};

void register_geometry(py::module_& m);

}  // namespace fastconv::bindings
