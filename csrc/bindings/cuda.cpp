// fastconv._cuda: the CUDA backend. It has the ops of _core, each with a stream and an allocator of scratch memory
// before the arguments. Arrays come as NumPy arrays that describe device memory: only their shapes, strides and
// pointers are looked at, which is all that the checks of checks.hpp need.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "batch_norm.hpp"
#include "checks.hpp"
#include "conv.hpp"
#include "cuda/runtime/context.hpp"
#include "cuda/runtime/device.hpp"
#include "dense.hpp"
#include "pool.hpp"
#include "relu.hpp"

namespace fastconv::bindings {
namespace {

using Allocate = std::function<std::uintptr_t(std::size_t bytes)>;  // the memory lives until the op has returned

// The op on a stream of the caller's.
template <class... Arguments>
auto on_stream(void (*op)(Arguments...)) {
  return [op](std::uintptr_t stream, const Allocate& allocate, Arguments... arguments) {
    const cuda::Context context{reinterpret_cast<void*>(stream), [&](std::size_t bytes) {
                                  const py::gil_scoped_acquire gil;
                                  return reinterpret_cast<void*>(allocate(bytes));
                                }};
    const cuda::ContextScope scope(context);
    op(std::forward<Arguments>(arguments)...);
  };
}

// A NumPy array over memory that NumPy must not touch; `owner` is kept alive.
py::array describe(std::uintptr_t pointer, const Dims& shape, const Dims& strides, const py::dtype& dtype,
                   const py::object& owner) {
  const py::array described(dtype, shape, strides, reinterpret_cast<void*>(pointer), owner);
  if (!element_strides(described)) {
    throw py::value_error("a GPU array of shape " + to_string(shape) +
                          " is unaligned or has strides that are no multiple of its item size: copy it first");
  }
  return described;
}

}  // namespace

PYBIND11_MODULE(FASTCONV_CUDA_MODULE, m) {
  m.doc() = "The CUDA kernels of fastconv; see fastconv.ops for what users call.";
  m.def("require_device", cuda::require_device);
  m.def("describe", describe);

  m.def("conv_fprop", on_stream(conv_fprop));
  m.def("conv_dgrad", on_stream(conv_dgrad));
  m.def("conv_wgrad", on_stream(conv_wgrad));
  m.def("conv_bgrad", on_stream(conv_bgrad));
  m.def("conv_grad", on_stream(conv_grad));
  m.def("conv_transpose_grad", on_stream(conv_transpose_grad));
  m.def("conv_transpose_fprop", on_stream(conv_transpose_fprop));
  m.def("conv_transpose_dgrad", on_stream(conv_transpose_dgrad));
  m.def("conv_transpose_wgrad", on_stream(conv_transpose_wgrad));
  m.def("batch_moments", on_stream(batch_moments));
  m.def("batch_norm_fprop", on_stream(batch_norm_fprop));
  m.def("batch_norm_grad", on_stream(batch_norm_grad));
  m.def("max_pool_fprop", on_stream(max_pool_fprop));
  m.def("max_pool_dgrad", on_stream(max_pool_dgrad));
  m.def("max_pool_offsets_fprop", on_stream(max_pool_offsets_fprop));
  m.def("max_pool_offsets_dgrad", on_stream(max_pool_offsets_dgrad));
  m.def("avg_pool_fprop", on_stream(avg_pool_fprop));
  m.def("avg_pool_dgrad", on_stream(avg_pool_dgrad));
  m.def("matmul", on_stream(matmul));
  m.def("column_sum", on_stream(column_sum));
  m.def("relu_fprop", on_stream(relu_fprop));
  m.def("relu_dgrad", on_stream(relu_dgrad));
  m.def("add", on_stream(add));
  m.def("plan_conv", plan_conv);
}

}  // namespace fastconv::bindings
