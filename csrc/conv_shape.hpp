// The geometry of a convolution or pooling call: the only stride, padding and dilation arithmetic, host and device.
//
// Everything has three spatial axes (D, H, W); a 2-D call has a depth of one, a 1-D call a height of one too.
// Letters: x[N,C,D,H,W], w[K,C/groups,T,R,S], y[N,K,Z,P,Q].
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__
#define FASTCONV_HD __host__ __device__
#else
#define FASTCONV_HD
#endif

namespace fastconv {

template <class Int>
struct RangeOf {
  Int begin = 0, end = 0;
  FASTCONV_HD constexpr Int size() const { return end - begin; }
};

FASTCONV_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a >= 0, b > 0

// Whether 0 <= i < count, in one comparison.
template <class Int>
FASTCONV_HD constexpr bool within(Int i, Int count) {
  using Unsigned = std::make_unsigned_t<Int>;
  return static_cast<Unsigned>(i) < static_cast<Unsigned>(count);
}

// One spatial axis: output o and filter tap f meet at the input coordinate o*stride + f*dilation - pad_begin.
// Int is 64 bits wide, or 32 in kernels of a GPU, whose callers have checked that it is enough.
template <class Int>
struct AxisOf {
  using Range = RangeOf<Int>;

  Int in = 1, filter = 1, stride = 1, pad_begin = 0, pad_end = 0, dilation = 1, out = 1;
  bool even = false;  // adaptive pooling: the windows share the input evenly, whatever filter, stride and padding say

  // The same axis in numbers of another width.
  template <class Other>
  constexpr AxisOf<Other> as() const {
    const auto to = [](Int value) { return static_cast<Other>(value); };
    return {to(in), to(filter), to(stride), to(pad_begin), to(pad_end), to(dilation), to(out), even};
  }

  // The cells that a dilated window spans.
  FASTCONV_HD constexpr Int window() const { return (filter - 1) * dilation + 1; }
  // The cells that some neighbouring outputs span.
  FASTCONV_HD constexpr Int span(Int outputs) const { return (outputs - 1) * stride + window(); }

  // The input coordinate of tap f at output o; outside [0, in) it lies in the padding.
  FASTCONV_HD constexpr Int input(Int o, Int f) const { return o * stride + f * dilation - pad_begin; }
  FASTCONV_HD constexpr bool inside(Int i) const { return within(i, in); }

  // The output at which tap f reads input i; -1 if there is none.
  FASTCONV_HD constexpr Int output(Int i, Int f) const {
    const Int distance = i + pad_begin - f * dilation;
    return distance < 0 || distance % stride != 0 || distance / stride >= out ? -1 : distance / stride;
  }

  // The outputs at which tap f reads a real input cell.
  FASTCONV_HD constexpr Range outputs(Int f) const {
    const Int shift = pad_begin - f * dilation;  // o*stride >= shift and o*stride < in + shift
    const Int begin = shift > 0 ? up(shift, stride) : 0;
    const Int limit = in + shift > 0 ? up(in + shift, stride) : 0;
    const Int end = limit < out ? limit : out;
    return {begin, end > begin ? end : begin};
  }

  // The taps of output o that read real input cells.
  FASTCONV_HD constexpr Range taps(Int o) const {
    const Int begin = first_tap(o), end = end_tap(o);
    return {begin, end > begin ? end : begin};
  }
  // The two ends of it apart, for kernels that are short of registers; where there is no tap, the end may come first.
  FASTCONV_HD constexpr Int first_tap(Int o) const {
    const Int first = input(o, 0);
    return first < 0 ? up(-first, dilation) : 0;
  }
  FASTCONV_HD constexpr Int end_tap(Int o) const {
    const Int room = in - 1 - input(o, 0);  // cells from the first tap's to the last real one
    const Int limit = room < 0 ? 0 : room / dilation + 1;
    return limit < filter ? limit : filter;
  }

  // The inputs at one remainder of the stride are a phase, numbered 0, 1, ... in it: how many there are, and of one ...
  FASTCONV_HD constexpr Int phases() const { return stride < in ? stride : in; }
  FASTCONV_HD constexpr Int phase_size(Int phase) const { return up(in - phase, stride); }
  // ... the phase that tap f reads, and the number there of the input that it reads at outputs(f).begin.
  FASTCONV_HD constexpr Int phase_of_tap(Int f) const { return input(outputs(f).begin, f) % stride; }
  FASTCONV_HD constexpr Int first_of_tap(Int f) const { return input(outputs(f).begin, f) / stride; }

  // The outputs whose taps are all real cells; empty if there is none.
  FASTCONV_HD constexpr Range inner_outputs() const {
    const Range first = outputs(0), last = outputs(filter - 1);
    const Int begin = first.begin > last.begin ? first.begin : last.begin;
    const Int end = first.end < last.end ? first.end : last.end;
    return {begin, end > begin ? end : begin};
  }

  // Pooling, without dilation: the real cells of output o's window, in order of o ...
  FASTCONV_HD constexpr Range cells(Int o) const {
    if (even) return {o * in / out, up((o + 1) * in, out)};
    const Int first = o * stride - pad_begin;
    const Int begin = first < 0 ? 0 : first < in ? first : in, end = first + filter < in ? first + filter : in;
    return {begin, end > begin ? end : begin};
  }
  // ... those of the padded input, if `padded`: cells that only ceil mode adds are neither ...
  FASTCONV_HD constexpr Int window_size(Int o, bool padded) const {
    if (even || !padded) return cells(o).size();
    const Int room = pad_begin + in + pad_end - o * stride;
    return filter < room ? filter : room;
  }
  // ... and the outputs whose windows hold input i.
  FASTCONV_HD constexpr Range windows_over(Int i) const {
    if (even) return {i * out / in, up((i + 1) * out, in)};
    const Int at = i + pad_begin, begin = at < filter ? 0 : (at - filter) / stride + 1, end = at / stride + 1;
    return {begin < out ? begin : out, end < out ? end : out};
  }

  // Output o is input o: no stride, no padding, one tap.
  FASTCONV_HD constexpr bool pointwise() const { return filter == 1 && stride == 1 && pad_begin == 0 && out == in; }

 private:
  FASTCONV_HD static constexpr Int up(Int a, Int b) { return (a + b - 1) / b; }  // ceil_div, of as many bits as Int
};
using Range = RangeOf<int64_t>;
using Axis = AxisOf<int64_t>;

// Output extents. `floor` drops a last window that does not fit; `ceil` keeps it if it starts inside the input or its
// leading padding (PyTorch's ceil_mode).
enum class Rounding { floor, ceil };

constexpr int64_t output_extent(const Axis& a, Rounding rounding = Rounding::floor) {
  const int64_t room = a.in + a.pad_begin + a.pad_end - a.window();
  if (rounding == Rounding::floor) return room < 0 ? 0 : room / a.stride + 1;
  if (room <= -a.stride) return 0;
  const int64_t out = ceil_div(room, a.stride) + 1;
  return (out - 1) * a.stride >= a.in + a.pad_begin ? out - 1 : out;
}

// Padding that makes out = ceil(in / stride); an odd cell goes after the input, or before it with `extra_before`.
constexpr void pad_same(Axis& a, bool extra_before) {
  const int64_t needed = (ceil_div(a.in, a.stride) - 1) * a.stride + a.window() - a.in;
  const int64_t total = needed > 0 ? needed : 0;
  a.pad_begin = extra_before ? total - total / 2 : total / 2;
  a.pad_end = total - a.pad_begin;
}

// The extent of a transposed convolution's result, the inputs that lead to the axis's outputs: what the windows span
// without the padding, and `extra` cells after it; or, under padding "same", a stride for each output.
constexpr int64_t transposed_extent(const Axis& a, int64_t extra) {
  return (a.out - 1) * a.stride + a.window() + extra - a.pad_begin - a.pad_end;
}
constexpr int64_t transposed_same_extent(const Axis& a) { return a.out * a.stride; }

struct ConvShape {
  int64_t n = 1, c = 1, k = 1, groups = 1;
  std::array<Axis, 3> axis;

  FASTCONV_HD constexpr int64_t group_c() const { return c / groups; }
  FASTCONV_HD constexpr int64_t group_k() const { return k / groups; }
  constexpr std::array<int64_t, 5> x_extents() const { return {n, c, axis[0].in, axis[1].in, axis[2].in}; }
  constexpr std::array<int64_t, 5> y_extents() const { return {n, k, axis[0].out, axis[1].out, axis[2].out}; }
  constexpr std::array<int64_t, 5> w_extents() const {
    return {k, group_c(), axis[0].filter, axis[1].filter, axis[2].filter};
  }
  FASTCONV_HD constexpr int64_t taps() const { return axis[0].filter * axis[1].filter * axis[2].filter; }
  FASTCONV_HD constexpr int64_t pixels() const { return axis[0].out * axis[1].out * axis[2].out; }
  FASTCONV_HD constexpr int64_t cells() const { return axis[0].in * axis[1].in * axis[2].in; }
  FASTCONV_HD constexpr bool pointwise() const {
    return axis[0].pointwise() && axis[1].pointwise() && axis[2].pointwise();
  }
  // Floating-point operations of the definition, the same for all three passes.
  constexpr double flops() const {
    return 2.0 * static_cast<double>(n) * static_cast<double>(pixels()) * static_cast<double>(k) *
           static_cast<double>(group_c()) * static_cast<double>(taps());
  }
};

struct PoolShape {
  int64_t n = 1, c = 1;
  std::array<Axis, 3> axis;

  FASTCONV_HD constexpr int64_t pixels() const { return axis[0].out * axis[1].out * axis[2].out; }
  FASTCONV_HD constexpr int64_t cells() const { return axis[0].in * axis[1].in * axis[2].in; }
};

}  // namespace fastconv
