// What kernels see of an array that has passed its checks: a pointer and element strides.
#pragma once

#include <array>
#include <optional>

#include "checks.hpp"

namespace fastconv::bindings {

// An input that kernels can address by element strides: the array itself, or a copy of one that is unaligned or whose
// strides are no multiple of the item size.
inline py::array addressable(const py::array& a, const std::string& name) {
  if (element_strides(a)) return a;
  try {
    return py::array(a.attr("copy")("C"));
  } catch (py::error_already_set& error) {  // NumPy has a ValueError for what no memory could ever hold
    if (!error.matches(PyExc_MemoryError) && !error.matches(PyExc_ValueError)) throw;
    py::raise_from(error, PyExc_MemoryError,
                   (name + " of shape " + to_string(dims_of(a)) + " and dtype " + dtype_name(a) +
                    " is unaligned and must be copied, but there is no memory for the copy")
                       .c_str());
    throw py::error_already_set();
  }
}

// Strides in elements of an array that has passed check_image_rank, axes as [N, C, (D, (H,)) W]; missing spatial axes
// have extent one and stride zero.
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

template <class T>
Vector<const T> optional_vector(const std::optional<py::array>& a, const char* name, int64_t size, const char* why,
                                const char* like) {
  if (!a) return {};
  check_type<T>(*a, name, like);
  check_shape(*a, name, {size}, why);
  return {static_cast<const T*>(a->data()), a->strides(0) / a->itemsize()};
}

}  // namespace fastconv::bindings
