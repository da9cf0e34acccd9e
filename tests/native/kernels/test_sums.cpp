// Sums over windows, rows and columns, and the sums and maps of batch normalisation, each against a plain loop.
#include <vector>

#include "cells.hpp"
#include "cpu/runtime/isa.hpp"

namespace fastconv::cpu {
namespace {

using test::Cells;
using test::Integers;
using test::integers;

constexpr int64_t kCounts[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 131};

int64_t padded(int64_t count) { return (count + kMaxLanes - 1) / kMaxLanes * kMaxLanes; }

}  // namespace

TEST(weighted_rows) {
  test::for_floats([]<class T>() {
    Integers random(1);
    for (const int64_t count : kCounts) {
      for (const int64_t step : {1, 2, 3}) {
        for (const bool begun : {false, true}) {
          for (const T divisor : {T(1), T(4)}) {
            std::vector<std::vector<T>> rows;
            std::vector<const T*> pointers;
            for (int i = 0; i < 5; ++i) {
              rows.push_back(integers<T>(random, (count - 1) * step + 1));
              pointers.push_back(rows.back().data());
            }
            const auto weights = integers<T>(random, 5);
            Cells<T> out(random, count), expected = out;
            sum_kernels<T>().rows(out.data(), count, begun ? out.data() : nullptr, pointers.data(), weights.data(), 5,
                                  step, divisor);
            for (int64_t i = 0; i < count; ++i) {
              T sum = begun ? expected.data()[i] : T(0);
              for (std::size_t j = 0; j < rows.size(); ++j)
                sum += weights[j] * rows[j][static_cast<std::size_t>(i * step)];
              expected.data()[i] = sum / divisor;
            }
            CHECK(out == expected, "count", count, "step", step, "begun", begun, "divisor", divisor);
          }
        }
      }
    }
  });
}

TEST(sliding_windows) {
  test::for_floats([]<class T>() {
    Integers random(2);
    for (const int64_t count : kCounts) {
      for (const int64_t stride : {1, 2}) {
        for (const int64_t taps : {1, 2, 3, 6}) {
          const auto row = integers<T>(random, padded(count) * stride + taps);
          Cells<T> sums(padded(count)), expected = sums;
          sum_kernels<T>().slide(sums.data(), count, row.data(), taps, stride);
          for (int64_t i = 0; i < padded(count); ++i) {
            T sum = 0;
            for (int64_t t = 0; t < taps; ++t) sum += row[static_cast<std::size_t>(i * stride + t)];
            // What lies between the count and the padding is anything.
            expected.data()[i] = i < count ? sum : sums.data()[i];
          }
          CHECK(sums == expected, "count", count, "stride", stride, "taps", taps);
        }
      }
    }
  });
}

TEST(runs_and_columns) {
  test::for_floats([]<class T>() {
    Integers random(3);
    for (const int64_t count : kCounts) {
      const int64_t rows = 3, stride = count + 2;
      const auto src = integers<T>(random, (rows - 1) * stride + count);
      T sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += src[static_cast<std::size_t>(i)];
      CHECK_EQUAL(sum_kernels<T>().run(src.data(), count), sum, "count", count);
      CHECK_EQUAL(sum_kernels<T>().run_in_double(src.data(), count), static_cast<double>(sum), "count", count);
      Cells<double> totals(random, count), expected = totals;
      sum_kernels<T>().columns_in_double(totals.data(), src.data(), stride, rows, count);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t row = 0; row < rows; ++row) expected.data()[i] += src[static_cast<std::size_t>(row * stride + i)];
      }
      CHECK(totals == expected, "count", count);
    }
  });
}

TEST(interleaved_and_divided_rows) {
  test::for_floats([]<class T>() {
    Integers random(4);
    for (const int64_t count : kCounts) {
      const auto even = integers<T>(random, padded(count)), odd = integers<T>(random, padded(count));
      Cells<T> out(2 * padded(count)), expected = out;
      sum_kernels<T>().interleave(out.data(), even.data(), odd.data(), count);
      for (int64_t i = 0; i < 2 * padded(count); ++i) {
        const T cell = (i % 2 == 0 ? even : odd)[static_cast<std::size_t>(i / 2)];
        expected.data()[i] = i < 2 * count ? cell : out.data()[i];
      }
      CHECK(out == expected, "count", count);

      std::vector<T> divisors(static_cast<std::size_t>(padded(count)));
      for (T& divisor : divisors) divisor = T(1 << random.next<int>(0, 3));  // so that quotients are exact
      for (const int64_t out_step : {1, 3}) {
        for (const int64_t src_step : {1, 2}) {
          const auto src = integers<T>(random, (count - 1) * src_step + 1);
          Cells<T> quotients(count * out_step), by_loop = quotients;
          sum_kernels<T>().divide(quotients.data(), out_step, src.data(), src_step, divisors.data(), T(2), count);
          for (int64_t i = 0; i < count; ++i) {
            by_loop.data()[i * out_step] =
                src[static_cast<std::size_t>(i * src_step)] / (2 * divisors[static_cast<std::size_t>(i)]);
          }
          CHECK(quotients == by_loop, "count", count, "out_step", out_step, "src_step", src_step);
        }
      }
    }
  });
}

TEST(sums_of_channels) {
  test::for_floats([]<class T>() {
    Integers random(5);
    for (const int64_t channels : kCounts) {
      const int64_t rows = 4, a_stride = channels + 1, b_stride = channels + 3;
      const auto a = integers<T>(random, (rows - 1) * a_stride + channels);
      const auto b = integers<T>(random, (rows - 1) * b_stride + channels);
      const auto a0 = integers<T>(random, channels), b0 = integers<T>(random, channels);
      Cells<double> sum(random, channels), product(random, channels), expected_sum = sum, expected_product = product;
      batch_norm_kernels<T>().sums(rows, channels, {a.data(), a_stride}, {b.data(), b_stride}, a0.data(), b0.data(),
                                   sum.data(), product.data());
      for (int64_t c = 0; c < channels; ++c) {
        const auto at = static_cast<std::size_t>(c);
        for (int64_t row = 0; row < rows; ++row) {
          const double from_a = a[static_cast<std::size_t>(row * a_stride + c)] - a0[at];
          expected_sum.data()[c] += from_a;
          expected_product.data()[c] += from_a * (b[static_cast<std::size_t>(row * b_stride + c)] - b0[at]);
        }
      }
      CHECK(sum == expected_sum, "channels", channels);
      CHECK(product == expected_product, "channels", channels);
    }
  });
}

TEST(affine_maps_of_channels) {
  test::for_floats([]<class T>() {
    Integers random(6);
    for (const int64_t channels : kCounts) {
      for (const bool with_a : {false, true}) {
        for (const bool relu : {false, true}) {
          const int64_t rows = 3, stride = channels + 2;
          const auto a = integers<T>(random, rows * stride), b = integers<T>(random, rows * stride);
          const auto scale_a = integers<T>(random, channels), scale_b = integers<T>(random, channels);
          const auto shift_b = integers<T>(random, channels), bias = integers<T>(random, channels);
          Cells<T> y(rows * stride), expected = y;
          batch_norm_kernels<T>().affine(
              rows, channels, {with_a ? a.data() : nullptr, stride}, {b.data(), stride},
              {with_a ? scale_a.data() : nullptr, scale_b.data(), shift_b.data(), bias.data()}, relu,
              {y.data(), stride});
          for (int64_t row = 0; row < rows; ++row) {
            for (int64_t c = 0; c < channels; ++c) {
              const auto at = static_cast<std::size_t>(c), cell = static_cast<std::size_t>(row * stride + c);
              const T value =
                  scale_b[at] * (b[cell] - shift_b[at]) + bias[at] + (with_a ? scale_a[at] * a[cell] : T(0));
              expected.data()[row * stride + c] = relu && value < 0 ? T(0) : value;
            }
          }
          CHECK(y == expected, "channels", channels, "with_a", with_a, "relu", relu);
        }
      }
    }
  });
}

}  // namespace fastconv::cpu
