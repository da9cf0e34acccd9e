// Batch normalisation: sums and affine maps of rows that hold a value of each channel.
#include "batch_norm.hpp"

#include "float_tables.hpp"
#include "vector.hpp"

namespace fastconv::cpu::FASTCONV_ISA {
namespace {

template <class T>
void channel_sums(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const T* a0, const T* b0,
                  double* sum, double* product) {
  // Two vectors of double side by side: their additions do not wait for each other.
  constexpr int kL = kLanes<double>, kSide = 2;
  int64_t c = 0;
  for (; c + kSide * kL <= channels; c += kSide * kL) {
    Vector<double> shift_a[kSide], shift_b[kSide], s[kSide], p[kSide];
#pragma GCC unroll 2
    for (int i = 0; i < kSide; ++i) {
      shift_a[i] = load_as_double(a0 + c + i * kL);
      shift_b[i] = load_as_double(b0 + c + i * kL);
      s[i] = load(sum + c + i * kL);
      p[i] = load(product + c + i * kL);
    }
    for (int64_t row = 0; row < rows; ++row) {
#pragma GCC unroll 2
      for (int i = 0; i < kSide; ++i) {
        const Vector<double> from_a = load_as_double(a.data + row * a.stride + c + i * kL) - shift_a[i];
        s[i] += from_a;
        p[i] += from_a * (load_as_double(b.data + row * b.stride + c + i * kL) - shift_b[i]);
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < kSide; ++i) {
      store<double>(sum + c + i * kL, s[i]);
      store<double>(product + c + i * kL, p[i]);
    }
  }
  for (; c < channels; ++c) {
    for (int64_t row = 0; row < rows; ++row) {
      const double from_a = static_cast<double>(a.data[row * a.stride + c]) - static_cast<double>(a0[c]);
      sum[c] += from_a;
      product[c] += from_a * (static_cast<double>(b.data[row * b.stride + c]) - static_cast<double>(b0[c]));
    }
  }
}

template <class T, bool kWithA>
void channel_affine_of(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const ChannelAffine<T>& f,
                       bool relu, Rows<T> y) {
  constexpr int kL = kLanes<T>;
  int64_t c = 0;
  for (; c + kL <= channels; c += kL) {
    const Vector<T> scale_a = kWithA ? load(f.scale_a + c) : Vector<T>{};
    const Vector<T> scale_b = load(f.scale_b + c), shift_b = load(f.shift_b + c), bias = load(f.bias + c);
    for (int64_t row = 0; row < rows; ++row) {
      Vector<T> value = scale_b * (load(b.data + row * b.stride + c) - shift_b) + bias;
      if constexpr (kWithA) value += scale_a * load(a.data + row * a.stride + c);
      store<T>(y.data + row * y.stride + c, relu ? (value < 0 ? Vector<T>{} : value) : value);
    }
  }
  for (; c < channels; ++c) {
    for (int64_t row = 0; row < rows; ++row) {
      T value = f.scale_b[c] * (b.data[row * b.stride + c] - f.shift_b[c]) + f.bias[c];
      if constexpr (kWithA) value += f.scale_a[c] * a.data[row * a.stride + c];
      y.data[row * y.stride + c] = relu && value < 0 ? T(0) : value;
    }
  }
}

template <class T>
void channel_affine(int64_t rows, int64_t channels, Rows<const T> a, Rows<const T> b, const ChannelAffine<T>& f,
                    bool relu, Rows<T> y) {
  if (a.data != nullptr) return channel_affine_of<T, true>(rows, channels, a, b, f, relu, y);
  channel_affine_of<T, false>(rows, channels, a, b, f, relu, y);
}

template <class T>
constexpr BatchNormKernels<T> kBatchNorm{channel_sums<T>, channel_affine<T>};

}  // namespace

extern const FloatTables<BatchNormKernels> batch_norm;
const FloatTables<BatchNormKernels> batch_norm{kBatchNorm<float>, kBatchNorm<double>};

}  // namespace fastconv::cpu::FASTCONV_ISA
