// Winograd's transforms. Lanes are channels, so that none of them shuffles.
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// Winograd's transforms of F(o x o, r x r): of inputs d[s][s], filters g[r][r] and outputs y[o][o], s = o + r - 1.
template <class T>
struct WinogradTransforms {
  // v[s * s] of one tile, `stride` apart, is B^T d B of d, whose rows and columns lie as their strides say.
  void (*input)(T* v, int64_t stride, const T* d, int64_t row_stride, int64_t column_stride);
  // Its adjoint: d += B v B^T.
  void (*input_gradient)(T* d, int64_t row_stride, int64_t column_stride, const T* v, int64_t stride);
  // u[s * s], `stride` apart, is G g G^T, for the filters of one vector.
  void (*filter)(T* u, int64_t stride, const T* g, int64_t tap_stride);
  // y is A^T m A + bias of m[s * s], `stride` apart, through relu. bias: one vector.
  void (*output)(T* y, int64_t row_stride, int64_t column_stride, const T* m, int64_t stride, const T* bias, bool relu);
  // Their adjoints, for the weight gradient: e[s * s], `stride` apart, is A dy A^T of dy[o][o]; g[r][r][lanes] is
  // G^T u G of u[s * s], `stride` apart.
  void (*gradient)(T* e, int64_t stride, const T* dy, int64_t row_stride, int64_t column_stride);
  void (*filter_gradient)(T* g, const T* u, int64_t stride);
};
template <class T>
struct WinogradKernels {
  WinogradTransforms<T> f4x4_3x3, f2x2_3x3, f2x2_5x5;
};

}  // namespace fastconv::cpu
