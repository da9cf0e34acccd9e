#include <algorithm>
#include <array>

#include "gemm.hpp"

namespace fastconv::cpu {

void Lattice::offsets(Range lanes, int64_t* out) const noexcept {
  std::array<int64_t, 4> at{};
  int64_t rest = lanes.begin;
  for (std::size_t axis = 4; axis-- > 0; rest /= extent[axis]) at[axis] = rest % extent[axis];
  for (int64_t lane = lanes.begin; lane < lanes.end;) {
    const int64_t start = at[0] * stride[0] + at[1] * stride[1] + at[2] * stride[2];
    for (; at[3] < extent[3] && lane < lanes.end; ++at[3], ++lane) *out++ = start + at[3] * stride[3];
    for (std::size_t axis = 3; axis > 0 && at[axis] == extent[axis]; --axis) {
      at[axis] = 0;
      ++at[axis - 1];
    }
  }
}

template <class T>
void MatrixOperand<T>::pack(T* panels, int width, Range lanes, Range terms, std::byte*) const noexcept {
  const LayoutKernels<T>& layout = layout_kernels<T>();
  const T* data = data_ + lanes.begin * lane_stride_ + terms.begin * term_stride_;
  if (lane_stride_ == 1) return layout.pack_lanes(panels, width, data, term_stride_, lanes.size(), terms.size());
  for (int64_t first = 0; first < lanes.size();
       first += width, panels += terms.size() * width, data += width * lane_stride_) {
    const int count = static_cast<int>(std::min<int64_t>(width, lanes.size() - first));
    if (term_stride_ == 1) {
      std::array<const T*, kMaxWidth> rows{};
      for (int i = 0; i < count; ++i) rows[static_cast<std::size_t>(i)] = data + i * lane_stride_;
      layout.pack_rows(panels, width, rows.data(), count, terms.size());
      continue;
    }
    for (int64_t j = 0; j < terms.size(); ++j) {
      for (int i = 0; i < width; ++i)
        panels[j * width + i] = i < count ? data[i * lane_stride_ + j * term_stride_] : T(0);
    }
  }
}

template class MatrixOperand<float>;
template class MatrixOperand<double>;

}  // namespace fastconv::cpu
