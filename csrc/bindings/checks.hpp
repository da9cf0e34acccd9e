// Every check of an array that comes from Python. After these a kernel needs none.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "../ops.hpp"
#ifdef FASTCONV_GPU
#include "cuda/runtime/half.hpp"
#endif

namespace fastconv {
struct Float16;  // of the GPU's backend
struct BFloat16;
}  // namespace fastconv

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
  if constexpr (std::is_same_v<T, Float16>) return "float16";
  if constexpr (std::is_same_v<T, BFloat16>) return "bfloat16";
  if constexpr (std::is_same_v<T, int8_t>) return "int8";
  if constexpr (std::is_same_v<T, uint8_t>) return "uint8";
  if constexpr (std::is_same_v<T, int32_t>) return "int32";
  if constexpr (std::is_same_v<T, int64_t>) return "int64";
}

template <class T>
bool has_type(const py::array& a) {
  if constexpr (std::is_same_v<T, BFloat16>) return dtype_name(a) == "bfloat16";  // ml_dtypes', to NumPy a void
  const char kind = !std::is_integral_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
  return a.dtype().kind() == kind && a.itemsize() == static_cast<py::ssize_t>(sizeof(T));
}

inline void check_byte_order(const py::array& a, const std::string& name) {
  const char order = a.dtype().byteorder();
  if (order == '=' || order == '|') return;
  throw py::type_error(name + " has non-native byte order (dtype " + dtype_name(a) + "): convert it with " + name +
                       ".astype(" + name + ".dtype.newbyteorder(\"=\"))");
}

// "float32, float64 or int8".
template <class First, class... Others>
std::string type_names() {
  std::string names = type_name<First>();
  std::size_t left = sizeof...(Others);
  ((names += std::string(--left == 0 ? " or " : ", ") + type_name<Others>()), ...);
  return names;
}

// Calls f(T{}) for the array's element type, one of these.
template <class... Types, class F>
void visit_types(const py::array& a, const std::string& name, F f) {
  check_byte_order(a, name);
  if (((has_type<Types>(a) && (f(Types{}), true)) || ...)) return;
  throw py::type_error(name + " has dtype " + dtype_name(a) + ", expected " + type_names<Types...>() +
                       ": convert it with " + name + ".astype(\"float32\")");
}

template <class F>
void visit_wide_float(const py::array& a, const std::string& name, F f) {
  visit_types<float, double>(a, name, f);
}

#ifdef FASTCONV_GPU
template <class F>
void visit_float(const py::array& a, const std::string& name, F f) {
  visit_types<float, double, Float16, BFloat16>(a, name, f);
}
// The same for what a maximum can be taken of.
template <class F>
void visit_number(const py::array& a, const std::string& name, F f) {
  visit_types<float, double, Float16, BFloat16, int8_t, uint8_t, int32_t, int64_t>(a, name, f);
}
#else
template <class F>
void visit_float(const py::array& a, const std::string& name, F f) {
  visit_wide_float(a, name, f);
}
template <class F>
void visit_number(const py::array& a, const std::string& name, F f) {
  visit_types<float, double, int8_t, uint8_t, int32_t, int64_t>(a, name, f);
}
#endif

template <class T>
void check_type(const py::array& a, const std::string& name, const std::string& like) {
  if (has_type<T>(a)) return check_byte_order(a, name);
  const std::string expected = type_name<T>();
  const std::string remedy = name == "out" ? "pass an array of " + expected
                                           : "nothing is cast silently, use " + name + ".astype(\"" + expected + "\")";
  throw py::type_error(name + " has dtype " + dtype_name(a) + ", expected " + expected +
                       (like.empty() ? "" : " as " + like + " has") + ": " + remedy);
}

inline void check_shape(const py::array& a, const std::string& name, const Dims& expected, const std::string& why) {
  if (static_cast<std::size_t>(a.ndim()) == expected.size() && std::equal(expected.begin(), expected.end(), a.shape()))
    return;
  throw py::value_error(name + " has shape " + to_string(dims_of(a)) + ", expected " + to_string(expected) + " (" +
                        why + ")");
}

inline void check_rank(const py::array& a, const char* name, py::ssize_t rank) {
  if (a.ndim() == rank) return;
  throw py::value_error(std::string(name) + " must have " + std::to_string(rank) + " axes, got shape " +
                        to_string(dims_of(a)));
}

// Batch, channels and one to three spatial axes: what a Tensor can show.
inline void check_image_rank(const py::array& a, const char* name) {
  if (3 <= a.ndim() && a.ndim() <= 5) return;
  throw py::value_error(std::string(name) + " must have 3, 4 or 5 axes, got shape " + to_string(dims_of(a)));
}

inline bool element_strides(const py::array& a) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(a.data()) % static_cast<std::size_t>(a.itemsize()) == 0;
  return aligned &&
         std::all_of(a.strides(), a.strides() + a.ndim(), [&](py::ssize_t s) { return s % a.itemsize() == 0; });
}

template <class T>
void check_contiguous(const py::array& a, const char* name) {
  check_type<T>(a, name, "");
  if ((a.flags() & py::array::c_style) == 0 || !element_strides(a)) {
    throw py::value_error(std::string(name) + " must be C-contiguous and aligned");
  }
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

template <class T>
void check_output(const py::array& a, const std::string& name, const std::string& like, const Dims& shape,
                  const std::string& why) {
  check_type<T>(a, name, like);
  check_shape(a, name, shape, why);
  check_writable(a, name);
}

}  // namespace fastconv::bindings
