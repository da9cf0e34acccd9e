// fastconv._core: the CPU backend.
#include <pybind11/stl.h>

#include "batch_norm.hpp"
#include "conv.hpp"
#include "cpu/conv.hpp"
#include "cpu/im2col/blas.hpp"
#include "cpu/runtime/float_mode.hpp"
#include "cpu/runtime/isa.hpp"
#include "cpu/runtime/peak.hpp"
#include "cpu/runtime/thread_pool.hpp"
#include "dense.hpp"
#include "geometry.hpp"
#include "gil.hpp"
#include "pool.hpp"
#include "relu.hpp"

namespace fastconv::bindings {

PYBIND11_MODULE(_core_of_main, m) {
  m.doc() = "The CPU kernels of fastconv. Arrays are checked here, once; see fastconv.ops for what users call.";
  cpu::kernels();  // a variable of the environment that makes no sense is an error at import
  cpu::check_environment();
  register_geometry(m);

  m.def("conv_fprop", conv_fprop);
  m.def("conv_dgrad", conv_dgrad);
  m.def("conv_wgrad", conv_wgrad);
  m.def("conv_bgrad", conv_bgrad);
  m.def("conv_grad", conv_grad);
  m.def("conv_transpose_grad", conv_transpose_grad);
  m.def("conv_transpose_fprop", conv_transpose_fprop);
  m.def("conv_transpose_dgrad", conv_transpose_dgrad);
  m.def("conv_transpose_wgrad", conv_transpose_wgrad);
  m.def("batch_moments", batch_moments);
  m.def("batch_norm_fprop", batch_norm_fprop);
  m.def("batch_norm_grad", batch_norm_grad);
  m.def("max_pool_fprop", max_pool_fprop);
  m.def("max_pool_dgrad", max_pool_dgrad);
  m.def("max_pool_offsets_fprop", max_pool_offsets_fprop);
  m.def("max_pool_offsets_dgrad", max_pool_offsets_dgrad);
  m.def("avg_pool_fprop", avg_pool_fprop);
  m.def("avg_pool_dgrad", avg_pool_dgrad);
  m.def("matmul", matmul);
  m.def("column_sum", column_sum);
  m.def("relu_fprop", relu_fprop);
  m.def("relu_dgrad", relu_dgrad);
  m.def("add", add);
  m.def("plan_conv", plan_conv);
  m.def("conv_variants", [] {
    py::list all;
    for (const auto& [algorithm, variant] : cpu::conv_variants())
      all.append(py::make_tuple(to_string(algorithm), variant.name, variant.reason));
    return all;
  });

  m.def("num_threads", cpu::num_threads);
  m.def("set_num_threads", cpu::set_num_threads);
  m.def("exchange_thread_limit", cpu::exchange_thread_limit);
  m.def("flush_denormal", cpu::flush_denormal);
  m.def("set_flush_denormal", cpu::set_flush_denormal);
  m.attr("__version__") = FASTCONV_VERSION;
  m.attr("MAX_THREADS") = cpu::kMaxThreads;
  m.attr("COMPILER") = "g++ " __VERSION__;
  m.def("isa", [] { return cpu::kernels().isa; });
  m.def("available_isas", cpu::available_isas);
  m.def("blas_version", cpu::blas_version);
  m.def("measure_peak", [](const std::string& dtype, int threads) {
    const ReleasedGil release;
    return cpu::measure_peak(dtype == "float64", threads);
  });
}

// Python's way in. pybind11 asks for the GIL by PyGILState_Ensure, which in a sub-interpreter waits for ever before
// Python 3.12; from then on Python itself refuses what pybind11 has not declared.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit__core_of_main();
  PyErr_SetString(PyExc_ImportError,
                  "fastconv works in the main interpreter alone, not in sub-interpreters: use threads or processes");
  return nullptr;
}

}  // namespace fastconv::bindings
