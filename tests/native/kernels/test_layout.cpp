// Moves of elements from one layout to another, each against a plain loop.
#include <vector>

#include "cells.hpp"
#include "cpu/runtime/isa.hpp"

namespace fastconv::cpu {
namespace {

using test::Cells;
using test::Integers;
using test::integers;

// Around every multiple of a vector that a kernel may treat apart.
std::vector<int64_t> awkward(int64_t lanes) {
  return {1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes - 1, 2 * lanes, 2 * lanes + 1, 5 * lanes + 3};
}

}  // namespace

TEST(planes_to_pixels_and_back) {
  test::for_floats([]<class T>() {
    Integers random(1);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const int lanes = layout.lanes;
    for (int channels = 1; channels <= lanes; ++channels) {
      for (const int64_t count : awkward(lanes)) {
        for (const int64_t pixel_stride : {lanes, lanes + 3}) {
          const int64_t channel_stride = count + 2;
          const auto planes = integers<T>(random, (channels - 1) * channel_stride + count);
          Cells<T> pixels((count - 1) * pixel_stride + lanes), expected = pixels;
          layout.planes_to_pixels(pixels.data(), pixel_stride, planes.data(), channel_stride, channels, count);
          for (int64_t i = 0; i < count; ++i) {
            for (int c = 0; c < lanes; ++c) {
              expected.data()[i * pixel_stride + c] =
                  c < channels ? planes[static_cast<std::size_t>(c * channel_stride + i)] : T(0);
            }
          }
          CHECK(pixels == expected, "channels", channels, "count", count, "stride", pixel_stride);

          Cells<T> back(channels * channel_stride), again = back;
          layout.pixels_to_planes(back.data(), channel_stride, pixels.data(), pixel_stride, channels, count);
          for (int c = 0; c < channels; ++c) {
            for (int64_t i = 0; i < count; ++i)
              again.data()[c * channel_stride + i] = planes[static_cast<std::size_t>(c * channel_stride + i)];
          }
          CHECK(back == again, "channels", channels, "count", count, "stride", pixel_stride);
        }
      }
    }
  });
}

TEST(pixels_may_run_backwards) {  // as the filters of an input gradient do
  test::for_floats([]<class T>() {
    Integers random(2);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const int64_t lanes = layout.lanes, count = lanes + 2, stride = lanes + 1;
    const auto planes = integers<T>(random, lanes * count);
    Cells<T> pixels(count * stride), expected = pixels;
    layout.planes_to_pixels(pixels.data() + (count - 1) * stride, -stride, planes.data(), count,
                            static_cast<int>(lanes), count);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < lanes; ++c)
        expected.data()[(count - 1 - i) * stride + c] = planes[static_cast<std::size_t>(c * count + i)];
    }
    CHECK(pixels == expected);
  });
}

TEST(copied_rows) {
  test::for_floats([]<class T>() {
    Integers random(3);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    for (const int64_t count : awkward(layout.lanes)) {
      for (const int64_t out_step : {1, 2}) {
        for (const int64_t step : {1, 2, 3, 4, 5}) {
          const int64_t rows = 3, src_stride = count * step + 1, out_stride = count * out_step + 2;
          const auto src = integers<T>(random, (rows - 1) * src_stride + (count - 1) * step + 1);
          Cells<T> out(rows * out_stride), expected = out;
          layout.copy_rows(out.data(), out_stride, out_step, src.data(), src_stride, step, rows, count);
          for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = 0; j < count; ++j)
              expected.data()[i * out_stride + j * out_step] = src[static_cast<std::size_t>(i * src_stride + j * step)];
          }
          CHECK(out == expected, "count", count, "out_step", out_step, "step", step);
        }
      }
    }
  });
}

TEST(padded_rows) {
  test::for_floats([]<class T>() {
    Integers random(4);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const int64_t lanes = layout.lanes, width = 3 * lanes, rows = 2;
    for (const int64_t step : {1, 2, 3, 4}) {
      for (const int64_t begin : {int64_t{0}, int64_t{1}, lanes - 1, lanes, lanes + 2, 2 * lanes}) {
        for (const int64_t end : {begin, begin + 1, 2 * lanes, 2 * lanes + 1, width}) {
          if (end < begin) continue;
          for (const int64_t ahead : {0, 32}) {
            const int64_t src_stride = width * step + 1, out_stride = width + 5;
            // The first real cell is the array's first, the last one its last.
            const auto src =
                integers<T>(random, end > begin ? (rows - 1) * src_stride + (end - begin - 1) * step + 1 : 1);
            const T* first = src.data() - begin * step;
            Cells<T> out(rows * out_stride), expected = out;
            layout.copy_padded(out.data(), out_stride, width, first, src_stride, step, begin, end, rows, ahead);
            for (int64_t i = 0; i < rows; ++i) {
              for (int64_t j = 0; j < width; ++j) {
                expected.data()[i * out_stride + j] =
                    begin <= j && j < end ? src[static_cast<std::size_t>(i * src_stride + (j - begin) * step)] : T(0);
              }
            }
            CHECK(out == expected, "step", step, "begin", begin, "end", end, "ahead", ahead);
          }
        }
      }
    }
  });
}

TEST(panels_of_lanes_side_by_side) {
  test::for_floats([]<class T>() {
    Integers random(5);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    for (const int width : {1, gemm.rows_mr, gemm.mr, layout.lanes, gemm.nr, gemm.rows_nr}) {
      for (const int64_t lanes : awkward(width)) {
        if (lanes <= 0) continue;
        for (const int64_t k : {1, 2, 7}) {
          const int64_t stride = lanes + 1, panels = (lanes + width - 1) / width;
          const auto src = integers<T>(random, (k - 1) * stride + lanes);
          Cells<T> out(panels * k * width), expected = out;
          layout.pack_lanes(out.data(), width, src.data(), stride, lanes, k);
          for (int64_t lane = 0; lane < panels * width; ++lane) {
            for (int64_t j = 0; j < k; ++j) {
              expected.data()[(lane / width * k + j) * width + lane % width] =
                  lane < lanes ? src[static_cast<std::size_t>(j * stride + lane)] : T(0);
            }
          }
          CHECK(out == expected, "width", width, "lanes", lanes, "k", k);
        }
      }
    }
  });
}

TEST(panels_of_rows) {
  test::for_floats([]<class T>() {
    Integers random(6);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    for (const int width : {1, gemm.rows_mr, gemm.mr, layout.lanes, gemm.nr, gemm.rows_nr}) {
      for (int lanes = 1; lanes <= width; ++lanes) {
        for (const int64_t k : awkward(layout.lanes)) {
          for (const bool gap : {false, true}) {  // a row that is not there
            std::vector<std::vector<T>> rows;
            std::vector<const T*> pointers;
            for (int i = 0; i < lanes; ++i) {
              rows.push_back(integers<T>(random, k));
              pointers.push_back(gap && i == lanes / 2 ? nullptr : rows.back().data());
            }
            Cells<T> panel(k * width), expected = panel;
            layout.pack_rows(panel.data(), width, pointers.data(), lanes, k);
            for (int64_t j = 0; j < k; ++j) {
              for (int i = 0; i < width; ++i) {
                const T* row = i < lanes ? pointers[static_cast<std::size_t>(i)] : nullptr;
                expected.data()[j * width + i] = row != nullptr ? row[j] : T(0);
              }
            }
            CHECK(panel == expected, "width", width, "lanes", lanes, "k", k, "gap", gap);
          }
        }
      }
    }
  });
}

TEST(panels_of_staged_runs) {
  test::for_floats([]<class T>() {
    Integers random(7);
    const LayoutKernels<T>& layout = layout_kernels<T>();
    const GemmKernels<T>& gemm = gemm_kernels<T>();
    const std::vector<int32_t> taps{0, 1, 9};
    const int tap_count = static_cast<int>(taps.size());
    for (const int width : {gemm.mr, layout.lanes, gemm.nr}) {
      for (int used = 1; used <= width; ++used) {
        for (const int cut : {used, (used + 1) / 2}) {  // one run, or two that do not follow each other
          std::vector<StagedRun> runs{{3, 0, cut}};
          if (cut < used) runs.push_back({40, cut - 0, used});
          for (StagedRun& run : runs) run.source -= run.begin;  // lane i is source + i
          for (const int64_t begin : {0, 2}) {
            const int64_t end = 11, row = 150;
            const auto staged = integers<T>(random, 4 * row + layout.lanes);
            Cells<T> panel((end - begin) * width), expected = panel;
            layout.pack_runs(panel.data(), width, staged.data(), row, taps.data(), tap_count, begin, end, runs.data(),
                             static_cast<int>(runs.size()));
            for (int64_t k = begin; k < end; ++k) {
              T* out = expected.data() + (k - begin) * width;
              for (int i = 0; i < width; ++i) out[i] = T(0);
              for (const StagedRun& run : runs) {
                const int64_t first = k / tap_count * row + taps[static_cast<std::size_t>(k % tap_count)] + run.source;
                for (int i = run.begin; i < run.end; ++i) out[i] = staged[static_cast<std::size_t>(first + i)];
              }
            }
            CHECK(panel == expected, "width", width, "used", used, "runs", runs.size(), "begin", begin);
          }
        }
      }
    }
  });
}

}  // namespace fastconv::cpu
