#include "geometry.hpp"

#include <pybind11/stl.h>

#include <limits>

namespace fastconv::bindings {
namespace {

// Filter extents, strides, dilations and paddings stay below this, so that the arithmetic of conv_shape.hpp cannot
// overflow.
constexpr int64_t kMaxExtent = std::numeric_limits<int32_t>::max();

constexpr double kMaxTransposed = static_cast<double>(int64_t{1} << 48);

constexpr const char* kAxisName[] = {"depth", "height", "width"};

// The layout's axes, checked against the rank of x.
struct Layout {
  std::size_t spatial;
  bool channels_last;

  Layout(const std::string& layout, const Dims& x, std::size_t spatial_) : spatial(spatial_) {
    const std::string axes = std::string("DHW").substr(3 - spatial);
    const std::string first = "NC" + axes, last = "N" + axes + "C";
    if (layout != first && layout != last) {
      throw py::value_error("layout must be \"" + first + "\" or \"" + last + "\", got \"" + layout + "\"");
    }
    channels_last = layout == last;
    if (x.size() != spatial + 2) {
      throw py::value_error("x must have " + std::to_string(spatial + 2) + " axes (" + layout + "), got shape " +
                            to_string(x) + (x.size() == spatial + 1 ? ": add a batch axis with x[None]" : ""));
    }
  }
  int64_t channels(const Dims& x) const { return channels_last ? x.back() : x[1]; }
  int64_t extent(const Dims& x, std::size_t axis) const { return x[axis + (channels_last ? 1 : 2)]; }
  Dims output(int64_t n, int64_t channels, const std::array<Axis, 3>& axis) const {
    return shape(n, channels, axis, &Axis::out);
  }
  Dims input(int64_t n, int64_t channels, const std::array<Axis, 3>& axis) const {
    return shape(n, channels, axis, &Axis::in);
  }

 private:
  Dims shape(int64_t n, int64_t channels, const std::array<Axis, 3>& axis, int64_t Axis::* extent) const {
    Dims dims{n};
    for (std::size_t i = 3 - spatial; i < 3; ++i) dims.push_back(axis[i].*extent);
    dims.insert(channels_last ? dims.end() : dims.begin() + 1, channels);
    return dims;
  }
};

void check_entries(const Dims& values, const char* name, std::size_t spatial, int64_t least) {
  if (values.size() != spatial) {
    throw py::value_error(std::string(name) + " must be an int or " + std::to_string(spatial) + " of them, got " +
                          to_string(values));
  }
  for (const int64_t value : values) {
    if (value < least || value > kMaxExtent) {
      throw py::value_error(std::string(name) + " must be at least " + std::to_string(least) +
                            " and below 2**31, got " + std::to_string(value));
    }
  }
}

void apply_padding(const Padding& padding, std::size_t spatial, std::array<Axis, 3>& axis) {
  Axis* const axes = axis.data() + (3 - spatial);
  if (const auto* word = std::get_if<std::string>(&padding)) {
    if (*word != "valid" && *word != "same" && *word != "same_lower") {
      throw py::value_error(
          "padding must be an int, one per axis, (before, after) per axis, \"valid\", \"same\" or "
          "\"same_lower\", got \"" +
          *word + "\"");
    }
    for (std::size_t i = 0; i < spatial && *word != "valid"; ++i) pad_same(axes[i], *word == "same_lower");
    return;
  }
  const auto& pairs = std::get<1>(padding);
  if (pairs.size() != spatial) {
    throw py::value_error("padding must have one entry per spatial axis (" + std::to_string(spatial) + "), got " +
                          std::to_string(pairs.size()));
  }
  for (std::size_t i = 0; i < spatial; ++i) {
    const auto [before, after] = pairs[i];
    if (before < 0 || after < 0 || before > kMaxExtent || after > kMaxExtent) {
      throw py::value_error("padding must not be negative nor reach 2**31, got (" + std::to_string(before) + ", " +
                            std::to_string(after) + "); to crop, slice x");
    }
    axes[i].pad_begin = before;
    axes[i].pad_end = after;
  }
}

// Output extents of all axes; one that is not positive is an error that quotes the shapes.
void apply_output(std::array<Axis, 3>& axis, Rounding rounding, const std::string& shapes) {
  for (std::size_t i = 0; i < 3; ++i) {
    Axis& a = axis[i];
    a.out = output_extent(a, rounding);
    if (a.in > 0 && a.out > 0) continue;
    throw py::value_error(std::string("the output would have no ") + kAxisName[i] + ": a window of " +
                          std::to_string(a.window()) + " (filter " + std::to_string(a.filter) + ", dilation " +
                          std::to_string(a.dilation) + ") does not fit into " + std::to_string(a.in) + " + padding " +
                          std::to_string(a.pad_begin) + " + " + std::to_string(a.pad_end) + "; " + shapes);
  }
}

void check_extents(const Dims& shape, const char* name, int bits) {
  for (const int64_t extent : shape) {
    if (extent >= 0 && extent >> bits == 0) continue;
    throw py::value_error(std::string(name) + " has shape " + to_string(shape) + ": each extent must be in [0, 2**" +
                          std::to_string(bits) + ")");
  }
}

std::size_t spatial_axes(const std::string& layout) {
  if (layout.size() < 3 || layout.size() > 5) throw py::value_error("layout \"" + layout + "\" is unknown");
  return layout.size() - 2;
}

void check_filters(const Dims& x, const Dims& w, std::size_t spatial, const std::string& channel_axes,
                   const std::string& shapes) {
  if (w.size() != spatial + 2) {
    throw py::value_error("w must have " + std::to_string(spatial + 2) + " axes (" + channel_axes +
                          (spatial == 1   ? ", S"
                           : spatial == 2 ? ", R, S"
                                          : ", T, R, S") +
                          "); " + shapes);
  }
  check_extents(x, "x", 48);
  check_extents(w, "w", 31);
  double cells = static_cast<double>(w[1]);
  for (std::size_t i = 0; i < spatial; ++i) {
    if (w[2 + i] < 1) throw py::value_error("w must have at least one cell along each spatial axis; " + shapes);
    cells *= static_cast<double>(w[2 + i]);
  }
  if (cells > static_cast<double>(kMaxExtent)) throw py::value_error("w has 2**31 or more cells a filter; " + shapes);
}

int64_t check_groups(int64_t groups, int64_t channels, int64_t filters, const std::string& shapes) {
  if (groups < 1) throw py::value_error("groups must be at least 1, got " + std::to_string(groups));
  if (channels % groups == 0 && filters % groups == 0) return groups;
  throw py::value_error("groups = " + std::to_string(groups) + " must divide the " + std::to_string(channels) +
                        " channels of x" +
                        (filters > 0 ? " and the " + std::to_string(filters) + " filters of w" : "") + "; " + shapes);
}

void apply_filter(const Dims& w, const Dims& stride, const Dims& dilation, std::size_t spatial,
                  std::array<Axis, 3>& axis) {
  check_entries(stride, "stride", spatial, 1);
  check_entries(dilation, "dilation", spatial, 1);
  for (std::size_t i = 0; i < spatial; ++i) {
    Axis& a = axis[3 - spatial + i];
    a.filter = w[2 + i];
    a.stride = stride[i];
    a.dilation = dilation[i];
  }
}

// Input extents from output extents: those of the result of a transposed convolution.
void apply_transposed_output(const Padding& padding, const Dims& output_padding, std::size_t spatial,
                             std::array<Axis, 3>& axis, const std::string& shapes) {
  check_entries(output_padding, "output_padding", spatial, 0);
  const auto* word = std::get_if<std::string>(&padding);
  const bool same = word != nullptr && *word != "valid";
  for (std::size_t i = 0; i < spatial; ++i) {
    Axis& a = axis[3 - spatial + i];
    if (static_cast<double>(a.out) * static_cast<double>(a.stride) > kMaxTransposed)
      throw py::value_error("the output would have 2**48 or more cells along an axis; " + shapes);
    a.in = transposed_same_extent(a);
    if (output_padding[i] >= (same ? 1 : std::max(a.stride, a.dilation))) {
      throw py::value_error("output_padding must be less than stride or dilation, and 0 with padding \"same\", got " +
                            std::to_string(output_padding[i]) + " for stride " + std::to_string(a.stride) +
                            " and dilation " + std::to_string(a.dilation));
    }
  }
  apply_padding(padding, spatial, axis);
  for (std::size_t i = 0; i < 3; ++i) {
    Axis& a = axis[i];
    const int64_t extra = i < 3 - spatial ? 0 : output_padding[i - (3 - spatial)];
    if (!same) a.in = transposed_extent(a, extra);
    if (a.out > 0 && a.in > 0) continue;
    throw py::value_error(std::string("the output would have no ") + kAxisName[i] + ": " + std::to_string(a.out) +
                          " cells at stride " + std::to_string(a.stride) + " under a window of " +
                          std::to_string(a.window()) + " are cropped by padding " + std::to_string(a.pad_begin) +
                          " + " + std::to_string(a.pad_end) + "; " + shapes);
  }
}

// What may have been meant where x has not the channels that each of w's filters takes.
std::string channels_hint(const Layout& layout, const Dims& x, int64_t filter_channels, int64_t groups) {
  if (filter_channels == 1 && groups == 1)
    return ": for a depthwise convolution pass groups=" + std::to_string(layout.channels(x));
  const int64_t elsewhere = layout.channels_last ? x[1] : x.back();
  if (elsewhere != filter_channels * groups) return "";
  return std::string(": are x's channels ") + (layout.channels_last ? "first" : "last") + "? Then pass that layout";
}

}  // namespace

ConvGeometry::ConvGeometry(Dims x_shape, Dims w_shape, const Dims& stride, const Padding& padding, const Dims& dilation,
                           int64_t groups, const std::string& layout_name)
    : x(std::move(x_shape)), w(std::move(w_shape)) {
  const std::size_t spatial = spatial_axes(layout_name);
  const Layout layout(layout_name, x, spatial);
  channels_last = layout.channels_last;
  const std::string shapes = "x has shape " + to_string(x) + " (" + layout_name + "), w has shape " + to_string(w);
  check_filters(x, w, spatial, "K, C/groups", shapes);
  shape.n = x[0];
  shape.c = layout.channels(x);
  shape.k = w[0];
  shape.groups = check_groups(groups, shape.c, shape.k, shapes);
  if (w[1] != shape.group_c()) {
    throw py::value_error(
        "x has " + std::to_string(shape.c) + " channels but w takes " + std::to_string(w[1] * groups) +
        (groups > 1 ? " (" + std::to_string(w[1]) + " in each of " + std::to_string(groups) + " groups)" : "") + "; " +
        shapes + channels_hint(layout, x, w[1], groups));
  }
  apply_filter(w, stride, dilation, spatial, shape.axis);
  for (std::size_t i = 0; i < spatial; ++i) shape.axis[3 - spatial + i].in = layout.extent(x, i);
  apply_padding(padding, spatial, shape.axis);
  apply_output(shape.axis, Rounding::floor, shapes);
  y = layout.output(shape.n, shape.k, shape.axis);
}

ConvGeometry ConvGeometry::transposed(const Dims& x_shape, const Dims& w_shape, const Dims& stride,
                                      const Padding& padding, const Dims& output_padding, const Dims& dilation,
                                      int64_t groups, const std::string& layout_name) {
  const std::size_t spatial = spatial_axes(layout_name);
  const Layout layout(layout_name, x_shape, spatial);
  const std::string shapes =
      "x has shape " + to_string(x_shape) + " (" + layout_name + "), w has shape " + to_string(w_shape);
  check_filters(x_shape, w_shape, spatial, "C, K/groups", shapes);
  ConvGeometry g;
  g.channels_last = layout.channels_last;
  g.w = w_shape;
  g.y = x_shape;
  g.shape.n = x_shape[0];
  g.shape.k = layout.channels(x_shape);
  if (w_shape[0] != g.shape.k) {
    throw py::value_error("x has " + std::to_string(g.shape.k) + " channels but w takes " + std::to_string(w_shape[0]) +
                          "; " + shapes);
  }
  g.shape.groups = check_groups(groups, g.shape.k, 0, shapes);
  g.shape.c = w_shape[1] * groups;
  apply_filter(w_shape, stride, dilation, spatial, g.shape.axis);
  for (std::size_t i = 0; i < spatial; ++i) g.shape.axis[3 - spatial + i].out = layout.extent(x_shape, i);
  apply_transposed_output(padding, output_padding, spatial, g.shape.axis, shapes);
  g.x = layout.input(g.shape.n, g.shape.c, g.shape.axis);
  return g;
}

PoolGeometry::PoolGeometry(Dims x_shape, const Dims& kernel_size, const Dims& stride, const Padding& padding,
                           const Dims& dilation, bool ceil_mode, const std::string& layout_name)
    : x(std::move(x_shape)) {
  const std::size_t spatial = kernel_size.size();
  const Layout layout(layout_name, x, spatial);
  channels_last = layout.channels_last;
  const std::string shapes =
      "x has shape " + to_string(x) + " (" + layout_name + "), kernel_size is " + to_string(kernel_size);
  check_extents(x, "x", 48);
  check_entries(kernel_size, "kernel_size", spatial, 1);
  check_entries(stride, "stride", spatial, 1);
  check_entries(dilation, "dilation", spatial, 1);
  shape.n = x[0];
  shape.c = layout.channels(x);
  for (std::size_t i = 0; i < spatial; ++i) {
    Axis& a = shape.axis[3 - spatial + i];
    a.in = layout.extent(x, i);
    a.filter = kernel_size[i];
    a.stride = stride[i];
    a.dilation = dilation[i];
  }
  apply_padding(padding, spatial, shape.axis);
  apply_output(shape.axis, ceil_mode ? Rounding::ceil : Rounding::floor, shapes);
  y = layout.output(shape.n, shape.c, shape.axis);
}

void PoolGeometry::check_max_pool() const {
  for (std::size_t i = 0; i < 3; ++i) {
    const Axis& a = shape.axis[i];
    const int64_t pad = std::max(a.pad_begin, a.pad_end);
    if (pad * 2 <= a.window()) continue;
    throw py::value_error("padding of a maximum must be at most half its window, got " + std::to_string(pad) +
                          " for a " + kAxisName[i] + " of " + std::to_string(a.window()) + "; x has shape " +
                          to_string(x));
  }
}

void PoolGeometry::check_offsets() const {
  const auto& [depth, height, width] = shape.axis;
  if (depth.filter <= kNoTap && height.filter <= kNoTap && depth.filter * height.filter * width.filter <= kNoTap)
    return;
  throw py::value_error("kernel_size must have at most 255 cells for one-byte offsets, got " +
                        std::to_string(depth.filter) + " * " + std::to_string(height.filter) + " * " +
                        std::to_string(width.filter));
}

PoolGeometry::PoolGeometry(Dims x_shape, const Dims& output_size, const std::string& layout_name)
    : x(std::move(x_shape)) {
  const std::size_t spatial = output_size.size();
  const Layout layout(layout_name, x, spatial);
  channels_last = layout.channels_last;
  check_extents(x, "x", 48);
  check_entries(output_size, "output_size", spatial, 1);
  shape.n = x[0];
  shape.c = layout.channels(x);
  for (std::size_t i = 0; i < spatial; ++i) {
    Axis& a = shape.axis[3 - spatial + i];
    a.in = layout.extent(x, i);
    a.out = output_size[i];
    a.even = true;
    if (a.in > 0 && static_cast<double>(a.in) * static_cast<double>(a.out) < 9e18) continue;
    throw py::value_error(std::string("the ") + kAxisName[3 - spatial + i] + " of x must be at least 1" +
                          (a.in > 0 ? " and, times that of the output, below 2**63" : "") + "; x has shape " +
                          to_string(x) + " (" + layout_name + "), output_size is " + to_string(output_size));
  }
  y = layout.output(shape.n, shape.c, shape.axis);
}

void register_geometry(py::module_& m) {
  const auto tuple = [](const Dims& dims) { return py::tuple(py::cast(dims)); };
  py::class_<ConvGeometry>(m, "ConvGeometry")
      .def(py::init<Dims, Dims, const Dims&, const Padding&, const Dims&, int64_t, const std::string&>(),
           py::arg("x_shape"), py::arg("w_shape"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
           py::arg("groups"), py::arg("layout"))
      .def_property_readonly("input_shape", [=](const ConvGeometry& g) { return tuple(g.x); })
      .def_property_readonly("output_shape", [=](const ConvGeometry& g) { return tuple(g.y); })
      .def_property_readonly("flops", [](const ConvGeometry& g) { return g.shape.flops(); });
  m.def("transposed_geometry", ConvGeometry::transposed, py::arg("x_shape"), py::arg("w_shape"), py::arg("stride"),
        py::arg("padding"), py::arg("output_padding"), py::arg("dilation"), py::arg("groups"), py::arg("layout"));
  py::class_<PoolGeometry>(m, "PoolGeometry")
      .def(py::init<Dims, const Dims&, const Dims&, const Padding&, const Dims&, bool, const std::string&>(),
           py::arg("x_shape"), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
           py::arg("ceil_mode"), py::arg("layout"))
      .def_property_readonly("output_shape", [=](const PoolGeometry& g) { return tuple(g.y); });
  m.def(
      "adaptive_geometry",
      [](const Dims& x_shape, const Dims& output_size, const std::string& layout) {
        return PoolGeometry(x_shape, output_size, layout);
      },
      py::arg("x_shape"), py::arg("output_size"), py::arg("layout"));
}

}  // namespace fastconv::bindings
