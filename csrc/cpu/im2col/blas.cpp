#include "blas.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

#ifndef FASTCONV_BLAS_FOLDER
#define FASTCONV_BLAS_FOLDER "$ORIGIN"  // beside this library
#endif

namespace fastconv::cpu {
namespace {

// The C interface of CBLAS, as much of it as is called.
enum Order { kRowMajor = 101 };
enum Transpose { kNoTrans = 111, kTrans = 112 };
template <class T>
using Gemm = void (*)(Order, Transpose, Transpose, int m, int n, int k, T alpha, const T* a, int lda, const T* b,
                      int ldb, T beta, T* c, int ldc);

// The library may not be inside a call while the process forks (the child would inherit its locks) or exits (it frees
// its buffers): both close this gate and wait for the calls in flight. It opens again after a fork, never after exit().
class Gate {
 public:
  void enter() {
    for (;;) {
      inside_.fetch_add(1);
      if (!closed_.load()) return;
      leave();
      ::usleep(100);
    }
  }
  void leave() { inside_.fetch_sub(1); }

  void close() {
    closed_.store(true);
    while (inside_.load() != 0) ::usleep(10);
  }
  void open() { closed_.store(false); }

 private:
  std::atomic<int> inside_{0};
  std::atomic<bool> closed_{false};
};

Gate gate;

struct InsideGate {
  InsideGate() { gate.enter(); }
  ~InsideGate() { gate.leave(); }
  InsideGate(const InsideGate&) = delete;
  InsideGate& operator=(const InsideGate&) = delete;
};

struct Blas {
  Gemm<float> sgemm;
  Gemm<double> dgemm;
  std::string version;
};

void* symbol(void* library, const char* name) {
  void* address = dlsym(library, name);
  if (address == nullptr) throw std::runtime_error(std::string("the BLAS beside fastconv lacks ") + name);
  return address;
}

Blas open_blas() {
  // By path and privately: another package's copy of the same library is another library.
  void* library = dlopen(FASTCONV_BLAS_FOLDER "/" FASTCONV_BLAS_FILE, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(std::string("cannot load fastconv's BLAS: ") + dlerror());
  // Parallelism is ours: one thread a call.
  reinterpret_cast<void (*)(int)>(symbol(library, "scipy_openblas_set_num_threads"))(1);
  std::atexit([] { gate.close(); });
  pthread_atfork([] { gate.close(); }, [] { gate.open(); }, [] { gate.open(); });
  return {reinterpret_cast<Gemm<float>>(symbol(library, "scipy_cblas_sgemm")),
          reinterpret_cast<Gemm<double>>(symbol(library, "scipy_cblas_dgemm")),
          reinterpret_cast<char* (*)()>(symbol(library, "scipy_openblas_get_config"))()};
}

const Blas& blas() {
  static const Blas library = open_blas();
  return library;
}

constexpr int64_t kMaxInt = std::numeric_limits<int>::max();

bool rows_contiguous(int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) {
  const int64_t ld = rows == 1 ? cols : row_stride;
  return (cols == 1 || col_stride == 1) && ld >= cols && ld <= kMaxInt && rows <= kMaxInt;
}

template <class T>
bool row_major(const Matrix<T>& a) {
  return rows_contiguous(a.rows, a.cols, a.row_stride, a.col_stride);
}

// The leading dimension of a row-major matrix; a single row's stride means nothing, and BLAS still looks at it.
template <class T>
int leading(const Matrix<T>& a) {
  const int64_t ld = a.rows == 1 ? a.cols : a.row_stride;
  return static_cast<int>(ld > 0 ? ld : 1);
}

template <class T>
Gemm<T> routine() {
  if constexpr (sizeof(T) == 4) {
    return blas().sgemm;
  } else {
    return blas().dgemm;
  }
}

}  // namespace

template <class T>
bool blas_matrix(const Matrix<T>& a) {
  return row_major(a) || row_major(a.transposed());
}

template <class T>
void gemm(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, bool accumulate) {
  if (!row_major(c)) return gemm(b.transposed(), a.transposed(), c.transposed(), accumulate);
  const bool ta = !row_major(a), tb = !row_major(b);
  const InsideGate inside;
  routine<T>()(kRowMajor, ta ? kTrans : kNoTrans, tb ? kTrans : kNoTrans, static_cast<int>(c.rows),
               static_cast<int>(c.cols), static_cast<int>(a.cols), T(1), a.data, leading(ta ? a.transposed() : a),
               b.data, leading(tb ? b.transposed() : b), T(accumulate ? 1 : 0), c.data, leading(c));
}

void load_blas() { blas(); }

const char* blas_version() { return blas().version.c_str(); }

template bool blas_matrix(const Matrix<float>&);
template bool blas_matrix(const Matrix<double>&);
template bool blas_matrix(const Matrix<const float>&);
template bool blas_matrix(const Matrix<const double>&);
template void gemm(Matrix<const float>, Matrix<const float>, Matrix<float>, bool);
template void gemm(Matrix<const double>, Matrix<const double>, Matrix<double>, bool);

}  // namespace fastconv::cpu
