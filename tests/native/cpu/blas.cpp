// A stand-in for OpenBLAS with the functions that csrc/cpu/gemm_blas.cpp calls, as CBLAS defines them.
#include <cstdio>
#include <cstdlib>

namespace {

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "cblas_gemm: %s\n", what);
  std::abort();
}

// c[m,n] = alpha op(a)[m,k] op(b)[k,n] + beta c, with beta = 0 never reading c.
template <class T>
void gemm(int order, int trans_a, int trans_b, int m, int n, int k, T alpha, const T* a, int lda, const T* b, int ldb,
          T beta, T* c, int ldc) {
  require(order == kRowMajor, "order is not row major");
  require(trans_a == kNoTrans || trans_a == kTrans, "trans_a is unknown");
  require(trans_b == kNoTrans || trans_b == kTrans, "trans_b is unknown");
  require(m >= 0 && n >= 0 && k >= 0, "an extent is negative");
  require(lda >= (trans_a == kTrans ? m : k) && lda > 0, "lda is too small");
  require(ldb >= (trans_b == kTrans ? k : n) && ldb > 0, "ldb is too small");
  require(ldc >= n && ldc > 0, "ldc is too small");
  for (int i = 0; i < m; ++i) {
    T* row = c + static_cast<long>(i) * ldc;
    for (int j = 0; j < n; ++j) row[j] = beta == T(0) ? T(0) : beta * row[j];
    for (int l = 0; l < k; ++l) {
      const T value =
          alpha * (trans_a == kTrans ? a[static_cast<long>(l) * lda + i] : a[static_cast<long>(i) * lda + l]);
      for (int j = 0; j < n; ++j) {
        row[j] += value * (trans_b == kTrans ? b[static_cast<long>(j) * ldb + l] : b[static_cast<long>(l) * ldb + j]);
      }
    }
  }
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void scipy_openblas_set_num_threads(int threads) { require(threads == 1, "threads of its own"); }

EXPORTED const char* scipy_openblas_get_config() { return "a stand-in"; }

EXPORTED void scipy_cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float* a,
                                int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  gemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

EXPORTED void scipy_cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double* a,
                                int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  gemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
