// Python's lock while a kernel runs.
#pragma once

#include <pybind11/pybind11.h>

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

}  // namespace fastconv::bindings
