// The arithmetic of conv_shape.hpp against counting, over all small values.
#include "conv_shape.hpp"

#include <algorithm>

#include "check.hpp"

namespace fastconv {

static std::ostream& operator<<(std::ostream& out, const Axis& a) {
  return out << "{in " << a.in << ", filter " << a.filter << ", stride " << a.stride << ", pads " << a.pad_begin
             << " and " << a.pad_end << ", dilation " << a.dilation << ", out " << a.out << '}';
}

namespace {

// Calls visit(axis) for every small axis; `out` is left at one.
template <class Visit>
void for_each_axis(Visit visit) {
  for (int64_t in = 1; in <= 8; ++in)
    for (int64_t filter = 1; filter <= 4; ++filter)
      for (int64_t stride = 1; stride <= 4; ++stride)
        for (int64_t begin = 0; begin <= 3; ++begin)
          for (int64_t end = 0; end <= 3; ++end)
            for (int64_t dilation = 1; dilation <= 3; ++dilation)
              visit(Axis{.in = in,
                         .filter = filter,
                         .stride = stride,
                         .pad_begin = begin,
                         .pad_end = end,
                         .dilation = dilation});
}

// Windows laid one after another over the padded input.
int64_t count_windows(const Axis& a, Rounding rounding) {
  const int64_t padded = a.pad_begin + a.in + a.pad_end;
  for (int64_t count = 0;; ++count) {
    const int64_t begin = count * a.stride, overrun = begin + a.window() - padded;
    const bool fits = overrun <= 0;
    // ceil also keeps a window that runs over the end by less than a stride, unless it sees nothing but the end's
    // padding.
    const bool kept = rounding == Rounding::ceil && overrun < a.stride && begin < a.pad_begin + a.in;
    if (!fits && !kept) return count;
  }
}

}  // namespace

TEST(output_extent_counts_windows) {
  for_each_axis([](const Axis& a) {
    CHECK_EQUAL(output_extent(a), count_windows(a, Rounding::floor), "axis", a);
    if (std::max(a.pad_begin, a.pad_end) * 2 > a.window()) return;  // no pool has so much padding
    CHECK_EQUAL(output_extent(a, Rounding::ceil), count_windows(a, Rounding::ceil), "axis", a);
  });
}

TEST(outputs_and_taps_are_those_that_meet_inside) {
  for_each_axis([](Axis a) {
    for (a.out = 1; a.out <= output_extent(a, Rounding::ceil); ++a.out) {
      for (int64_t f = 0; f < a.filter; ++f) {
        const Range range = a.outputs(f);
        CHECK(range.size() == 0 || (0 <= range.begin && range.begin < range.end && range.end <= a.out), "axis", a,
              "tap", f);
        for (int64_t o = 0; o < a.out; ++o) {
          const int64_t cell = o * a.stride + f * a.dilation - a.pad_begin;
          CHECK_EQUAL(range.begin <= o && o < range.end, 0 <= cell && cell < a.in, "axis", a, "tap", f);
          CHECK_EQUAL(a.inside(cell), 0 <= cell && cell < a.in, "axis", a, "cell", cell);
          CHECK_EQUAL(a.output(cell, f), o, "axis", a, "tap", f);
          const Range taps = a.taps(o);
          CHECK_EQUAL(taps.begin <= f && f < taps.end, 0 <= cell && cell < a.in, "axis", a, "output", o);
        }
      }
    }
  });
}

TEST(a_tap_reads_an_input_at_one_output_or_none) {
  for_each_axis([](Axis a) {
    a.out = output_extent(a);
    for (int64_t i = 0; i < a.in; ++i) {
      for (int64_t f = 0; f < a.filter; ++f) {
        int64_t found = -1;
        for (int64_t o = 0; o < a.out; ++o) {
          if (o * a.stride + f * a.dilation - a.pad_begin == i) found = o;
        }
        CHECK_EQUAL(a.output(i, f), found, "axis", a, "input", i);
      }
    }
  });
}

TEST(an_axis_of_32_bits_says_the_same) {
  for_each_axis([](Axis a) {
    a.out = output_extent(a, Rounding::ceil);
    const AxisOf<int> narrow = a.as<int>();
    for (int o = 0; o < narrow.out; ++o) {
      const Range taps = a.taps(o);
      CHECK_EQUAL(narrow.taps(o).begin, taps.begin, "axis", a, "output", o);
      CHECK_EQUAL(narrow.taps(o).end, taps.end, "axis", a, "output", o);
      CHECK_EQUAL(narrow.input(o, 0), a.input(o, 0), "axis", a, "output", o);
      CHECK_EQUAL(narrow.output(o, 0), a.output(o, 0), "axis", a, "input", o);
      CHECK_EQUAL(narrow.window_size(o, true), a.window_size(o, true), "axis", a, "output", o);
    }
  });
}

TEST(pad_same_adds_the_least_padding_that_gives_the_output) {
  for_each_axis([](Axis a) {
    const int64_t wanted = (a.in + a.stride - 1) / a.stride;
    for (const bool extra_before : {false, true}) {
      pad_same(a, extra_before);
      CHECK_EQUAL(output_extent(a), wanted, "axis", a, "extra_before", extra_before);
      const int64_t extra = extra_before ? a.pad_begin - a.pad_end : a.pad_end - a.pad_begin;
      CHECK(extra == 0 || extra == 1, "axis", a, "extra_before", extra_before);
      Axis less = a;
      less.pad_begin = 0;
      less.pad_end = a.pad_begin + a.pad_end - 1;
      if (less.pad_end >= 0) CHECK(output_extent(less) < wanted, "axis", a, "extra_before", extra_before);
    }
  });
}

TEST(transposed_extents_lead_to_the_outputs_they_come_from) {
  for_each_axis([](Axis a) {
    for (a.out = 1; a.out <= 4; ++a.out) {
      Axis back = a;
      for (int64_t extra = 0; extra < a.stride; ++extra) {
        back.in = transposed_extent(a, extra);
        CHECK_EQUAL(output_extent(back), a.out, "axis", a, "extra", extra);
      }
      back.in = transposed_same_extent(a);
      pad_same(back, false);
      CHECK_EQUAL(output_extent(back), a.out, "axis", a);
    }
  });
}

// Windows as ranges, without dilation, against the outputs and taps that meet each input.
TEST(windows_and_the_windows_over_an_input_are_each_others_inverse) {
  for_each_axis([](Axis a) {
    if (a.dilation > 1) return;
    for (const Rounding rounding : {Rounding::floor, Rounding::ceil}) {
      a.out = output_extent(a, rounding);
      for (int64_t o = 0; o < a.out; ++o) {
        int64_t real = 0, padded = 0;
        for (int64_t f = 0; f < a.filter; ++f) {
          real += a.inside(a.input(o, f));
          padded += a.input(o, f) < a.in + a.pad_end;
        }
        CHECK_EQUAL(a.cells(o).size(), real, "axis", a, "o", o);
        CHECK_EQUAL(a.window_size(o, true), padded, "axis", a, "o", o);
        CHECK_EQUAL(a.window_size(o, false), real, "axis", a, "o", o);
      }
      for (int64_t i = 0; i < a.in; ++i) {
        for (int64_t o = 0; o < a.out; ++o) {
          const Range cells = a.cells(o), over = a.windows_over(i);
          CHECK((cells.begin <= i && i < cells.end) == (over.begin <= o && o < over.end), "axis", a, "i", i, "o", o);
        }
      }
    }
  });
}

TEST(even_windows_share_the_input) {
  for (int64_t in = 1; in <= 12; ++in) {
    for (int64_t out = 1; out <= 12; ++out) {
      const Axis a{.in = in, .out = out, .even = true};
      CHECK_EQUAL(a.cells(0).begin, 0);
      CHECK_EQUAL(a.cells(out - 1).end, in);
      for (int64_t o = 0; o < out; ++o) {
        CHECK(a.cells(o).size() >= 1 && (o == 0 || a.cells(o).begin <= a.cells(o - 1).end), "axis", a, "o", o);
        for (int64_t i = 0; i < in; ++i) {
          const Range cells = a.cells(o), over = a.windows_over(i);
          CHECK((cells.begin <= i && i < cells.end) == (over.begin <= o && o < over.end), "axis", a, "i", i, "o", o);
        }
      }
    }
  }
}

TEST(phases_number_the_inputs_at_each_remainder_of_the_stride) {
  for_each_axis([](Axis a) {
    a.out = output_extent(a);
    int64_t inputs = 0;
    for (int64_t phase = 0; phase < a.phases(); ++phase) inputs += a.phase_size(phase);
    CHECK_EQUAL(inputs, a.in, "axis", a);
    for (int64_t f = 0; f < a.filter; ++f) {
      const Range outputs = a.outputs(f);
      for (int64_t o = outputs.begin; o < outputs.end; ++o) {
        const int64_t number = a.first_of_tap(f) + o - outputs.begin;
        CHECK_EQUAL(a.phase_of_tap(f) + number * a.stride, a.input(o, f), "axis", a, "tap", f, "output", o);
      }
    }
  });
}

TEST(large_extents_do_not_overflow) {
  constexpr int64_t big = (int64_t{1} << 31) - 1;
  Axis a{.in = int64_t{1} << 47, .filter = 1 << 15, .stride = 3, .pad_begin = big, .pad_end = 5, .dilation = big};
  a.out = output_extent(a);
  CHECK_EQUAL(a.out, (a.in + a.pad_begin + a.pad_end - a.window()) / 3 + 1);
  CHECK(a.input(a.out - 1, a.filter - 1) < a.in + a.pad_end);
  const Range range = a.outputs(a.filter - 1);
  CHECK(a.inside(a.input(range.begin, a.filter - 1)) && a.inside(a.input(range.end - 1, a.filter - 1)));
}

TEST(shapes_multiply_their_extents) {
  ConvShape s{.n = 2, .c = 6, .k = 10, .groups = 2, .axis = {}};
  s.axis[0] = {.in = 3, .filter = 2, .out = 2};
  s.axis[1] = {.in = 11, .filter = 5, .stride = 2, .out = 4};
  s.axis[2] = {.in = 7, .filter = 3, .out = 5};
  CHECK_EQUAL(s.group_c(), 3);
  CHECK_EQUAL(s.group_k(), 5);
  CHECK_EQUAL(s.taps(), 30);
  CHECK_EQUAL(s.pixels(), 40);
  CHECK_EQUAL(s.cells(), 231);
  CHECK_EQUAL(s.flops(), 2.0 * 2 * 40 * 10 * 3 * 30);
}

TEST(pointwise_axes_map_every_output_to_the_same_input) {
  for_each_axis([](Axis a) {
    a.out = output_extent(a);
    bool same = a.filter == 1 && a.out == a.in;
    for (int64_t o = 0; o < a.out; ++o) same = same && o * a.stride - a.pad_begin == o;
    // An axis of one output may have any stride; it need not be known as pointwise.
    CHECK(a.pointwise() == same || (same && a.out == 1), "axis", a);
  });
  ConvShape s;
  CHECK(s.pointwise());
  s.axis[1].filter = 2;
  CHECK(!s.pointwise());
}

}  // namespace fastconv
