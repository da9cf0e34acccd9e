// The options of a call from what Python passes: names of algorithms and precisions, a limit in bytes.
#pragma once

#include <string>
#include <type_traits>

#include "checks.hpp"

namespace fastconv::bindings {

inline int any_object(PyObject*) { return 1; }

// Arguments that any object may be passed for: they are checked here, where messages name them.
struct Word : py::object {
  PYBIND11_OBJECT(Word, py::object, any_object)
};
struct ByteLimit : py::object {
  PYBIND11_OBJECT(ByteLimit, py::object, any_object)
};

}  // namespace fastconv::bindings

namespace pybind11::detail {

// What signatures call them.
template <>
struct handle_type_name<fastconv::bindings::Word> {
  static constexpr auto name = const_name("str");
};
template <>
struct handle_type_name<fastconv::bindings::ByteLimit> {
  static constexpr auto name = const_name("int | None");
};

}  // namespace pybind11::detail

namespace fastconv::bindings {

inline std::string type_of(const py::handle& value) { return py::str(py::type::handle_of(value).attr("__name__")); }

inline std::string string_of(const Word& value, const char* name) {
  if (!py::isinstance<py::str>(value))
    throw py::type_error(std::string(name) + " must be a str, got " + type_of(value));
  return value.cast<std::string>();
}

inline Precision parse_precision(const Word& precision) {
  const std::string name = string_of(precision, "precision");
  if (name == "fp32") return Precision::fp32;
  if (name != "tf32") throw py::value_error("precision must be \"fp32\" or, on a GPU, \"tf32\", got \"" + name + "\"");
#ifndef FASTCONV_GPU
  throw py::value_error("precision \"tf32\" is for arrays on a GPU: use \"fp32\"");
#endif
  return Precision::tf32;
}

template <class T>
void check_precision(Precision precision, const char* name) {
  if (precision == Precision::fp32 || std::is_same_v<T, float>) return;
  throw py::value_error(std::string("precision \"tf32\" is for float32 arrays, and ") + name + " has dtype " +
                        type_name<T>() + ": use \"fp32\"");
}

inline ConvOptions conv_options(const Word& algorithm, const Word& precision, const ByteLimit& workspace_limit) {
  ConvOptions options;
  options.algorithm = parse_algorithm(string_of(algorithm, "algorithm"));
  options.precision = parse_precision(precision);
  if (workspace_limit.is_none()) return options;
  if (PyIndex_Check(workspace_limit.ptr()) == 0 || PyBool_Check(workspace_limit.ptr()) != 0) {
    throw py::type_error("workspace_limit must be an int of bytes or None, got " + type_of(workspace_limit));
  }
  const Py_ssize_t bytes =
      PyNumber_AsSsize_t(workspace_limit.ptr(), nullptr);  // clipped: more than there is, is no limit
  if (bytes < 0)
    throw py::value_error("workspace_limit must not be negative, got " + std::string(py::str(workspace_limit)));
  options.workspace_limit = static_cast<std::size_t>(bytes);
  return options;
}

}  // namespace fastconv::bindings
