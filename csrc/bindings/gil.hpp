// What a call changes of the thread it comes on while a kernel runs: Python's lock and the floating-point mode.
#pragma once

#include <pybind11/pybind11.h>

#ifndef FASTCONV_GPU
#include "cpu/runtime/float_mode.hpp"
#endif

namespace fastconv::bindings {

// The GIL, released for the time of a kernel. At interpreter exit a daemon thread never gets it back: Python ends the
// thread by unwinding its stack, which must be let through here.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() noexcept(false) { PyEval_RestoreThread(state_); }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

// Around the kernel of an op. The floating-point mode is the thread's own again before it waits for the GIL.
struct KernelScope {
  ReleasedGil released;
#ifndef FASTCONV_GPU
  cpu::FloatModeScope mode{cpu::call_mode()};
#endif
};

}  // namespace fastconv::bindings
