// Every check of an array that comes from Python. After these a kernel needs none.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <vector>

#include "../ops.hpp"

namespace fastconv::bindings {

namespace py = pybind11;

using Dims = std::vector<int64_t>;

inline std::string to_string(const Dims& dims) {
  std::string text = "(";
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(dims[i]);
  }
  return text + (dims.size() == 1 ? ",)" : ")");
}

inline Dims dims_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

inline std::string dtype_name(const py::array& a) { return py::str(py::handle(a.dtype())); }

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, double>) return "float64";
  if constexpr (std::is_same_v<T, int8_t>) return "int8";
  if constexpr (std::is_same_v<T, uint8_t>) return "uint8";
  if constexpr (std::is_same_v<T, int32_t>) return "int32";
  if constexpr (std::is_same_v<T, int64_t>) return "int64";
}

template <class T>
bool has_type(const py::array& a) {
  const char kind = std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
  return a.dtype().kind() == kind && a.itemsize() == static_cast<py::ssize_t>(sizeof(T));
}

inline void check_byte_order(const py::array& a, const std::string& name) {
  const char order = a.dtype().byteorder();
  if (order == '=' || order == '|') return;
  throw py::type_error(name + " has non-native byte order (dtype " + dtype_name(a) + "): convert it with " + name +
                       ".astype(" + name + ".dtype.newbyteorder(\"=\"))");
}

// Calls f(T{}) for the array's element type.
template <class F>
void visit_float(const py::array& a, const std::string& name, F f) {
  check_byte_order(a, name);
  if (has_type<float>(a)) return f(float{});
  if (has_type<double>(a)) return f(double{});
  throw py::type_error(name + " has dtype " + dtype_name(a) + ", expected float32 or float64: convert it with " + name +
                       ".astype(\"float32\")");
}

// The same for what a maximum can be taken of.
template <class F>
void visit_number(const py::array& a, const std::string& name, F f) {
  check_byte_order(a, name);
  if (has_type<float>(a)) return f(float{});
  if (has_type<double>(a)) return f(double{});
  if (has_type<int8_t>(a)) return f(int8_t{});
  if (has_type<uint8_t>(a)) return f(uint8_t{});
  if (has_type<int32_t>(a)) return f(int32_t{});
  if (has_type<int64_t>(a)) return f(int64_t{});
  throw py::type_error(name + " has dtype " + dtype_name(a) +
                       ", expected float32, float64, int8, uint8, int32 or int64: convert it with " + name +
                       ".astype(\"float32\")");
}

template <class T>
void check_type(const py::array& a, const std::string& name, const std::string& like) {
  if (has_type<T>(a)) return check_byte_order(a, name);
  const std::string expected = type_name<T>();
  throw py::type_error(name + " has dtype " + dtype_name(a) + ", expected " + expected +
                       (like.empty() ? "" : " as " + like + " has") + ": nothing is cast silently, use " + name +
                       ".astype(\"" + expected + "\")");
}

inline void check_shape(const py::array& a, const std::string& name, const Dims& expected, const std::string& why) {
  if (static_cast<std::size_t>(a.ndim()) == expected.size() && std::equal(expected.begin(), expected.end(), a.shape()))
    return;
  throw py::value_error(name + " has shape " + to_string(dims_of(a)) + ", expected " + to_string(expected) + " (" +
                        why + ")");
}

inline bool element_strides(const py::array& a) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(a.data()) % static_cast<std::size_t>(a.itemsize()) == 0;
  return aligned &&
         std::all_of(a.strides(), a.strides() + a.ndim(), [&](py::ssize_t s) { return s % a.itemsize() == 0; });
}

// An input that kernels can address by element strides: the array itself, or a copy of one that is unaligned or whose
// strides are no multiple of the item size.
template <class T>
py::array addressable(const py::array& a) {
  return element_strides(a) ? a : py::array(py::array_t<T, py::array::c_style | py::array::forcecast>(a));
}

// Whether two indices can lead to one element. Sorted by stride, axes usually span each other; if not, count.
inline bool overlaps_itself(const py::array& a) {
  if (a.size() <= 1) return false;
  std::vector<std::array<int64_t, 2>> axes;  // stride, extent
  for (py::ssize_t i = 0; i < a.ndim(); ++i) {
    if (a.shape(i) > 1) axes.push_back({std::abs(a.strides(i)), a.shape(i)});
  }
  std::sort(axes.begin(), axes.end());
  int64_t span = a.itemsize();
  bool nested = true;
  for (const auto& [stride, extent] : axes) {
    nested = nested && stride >= span;
    span = stride * (extent - 1) + span;
  }
  if (nested) return false;
  std::vector<int64_t> offsets{0};
  for (const auto& [stride, extent] : axes) {
    if (stride == 0) return true;
    const std::size_t before = offsets.size();
    for (int64_t i = 1; i < extent; ++i) {
      for (std::size_t j = 0; j < before; ++j) offsets.push_back(offsets[j] + i * stride);
    }
  }
  std::sort(offsets.begin(), offsets.end());
  return std::adjacent_find(offsets.begin(), offsets.end(),
                            [&](int64_t p, int64_t q) { return q - p < a.itemsize(); }) != offsets.end();
}

inline void check_writable(const py::array& a, const std::string& name) {
  if (!a.writeable()) throw py::value_error(name + " is read-only: pass a writable array");
  if (!element_strides(a)) {
    throw py::value_error(
        name + " is unaligned or has strides that are no multiple of its item size: kernels cannot write it");
  }
  if (overlaps_itself(a))
    throw py::value_error(name + " has several indices for one element: pass an array that does not overlap itself");
}

// Strides in elements, axes as [N, C, (D, (H,)) W]; missing spatial axes have extent one and stride zero.
template <class T>
Tensor<T> as_tensor(T* data, const py::array& a, bool channels_last) {
  const py::ssize_t spatial = a.ndim() - 2, item = a.itemsize();
  Tensor<T> t{data, {}};
  t.stride[0] = a.strides(0) / item;
  t.stride[1] = a.strides(channels_last ? a.ndim() - 1 : 1) / item;
  for (py::ssize_t i = 0; i < spatial; ++i) {
    t.stride[static_cast<std::size_t>(5 - spatial + i)] = a.strides((channels_last ? 1 : 2) + i) / item;
  }
  return t;
}

// The extents of the same axes.
inline std::array<int64_t, 5> tensor_shape(const py::array& a, bool channels_last) {
  const py::ssize_t spatial = a.ndim() - 2;
  std::array<int64_t, 5> shape{a.shape(0), a.shape(channels_last ? a.ndim() - 1 : 1), 1, 1, 1};
  for (py::ssize_t i = 0; i < spatial; ++i) {
    shape[static_cast<std::size_t>(5 - spatial + i)] = a.shape((channels_last ? 1 : 2) + i);
  }
  return shape;
}

template <class T>
Tensor<const T> readable(const py::array& a, bool channels_last) {
  return as_tensor(static_cast<const T*>(a.data()), a, channels_last);
}
template <class T>
Tensor<T> writable(py::array& a, bool channels_last) {
  return as_tensor(static_cast<T*>(a.mutable_data()), a, channels_last);
}

template <class T>
Matrix<const T> readable_matrix(const py::array& a) {
  return {static_cast<const T*>(a.data()), a.shape(0), a.shape(1), a.strides(0) / a.itemsize(),
          a.strides(1) / a.itemsize()};
}

}  // namespace fastconv::bindings
