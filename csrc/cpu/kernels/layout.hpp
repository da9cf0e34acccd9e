// Moves of elements from one layout to another: planes and pixels, rows, panels of the matrix product (gemm.hpp).
#pragma once

#include <cstdint>

namespace fastconv::cpu {

// Lanes [begin, end) of a panel's row: lane i is source + i elements from where a tap begins.
struct StagedRun {
  int32_t source, begin, end;
};

template <class T>
struct LayoutKernels {
  int lanes;  // of a vector

  // pixels[count][lanes], `pixel_stride` apart, from planes[channels <= lanes][count], `channel_stride` apart; missing
  // channels are zero. And back.
  void (*planes_to_pixels)(T* pixels, int64_t pixel_stride, const T* planes, int64_t channel_stride, int channels,
                           int64_t count);
  void (*pixels_to_planes)(T* planes, int64_t channel_stride, const T* pixels, int64_t pixel_stride, int channels,
                           int64_t count);

  // out[rows, count] = src[rows, count]; columns are a step apart, those of out 1 or 2.
  void (*copy_rows)(T* out, int64_t out_stride, int64_t out_step, const T* src, int64_t src_stride, int64_t src_step,
                    int64_t rows, int64_t count);

  // panels[lanes / width][k][width], lane i of row k being src[i + k * k_stride]; zeros after the last lane.
  void (*pack_lanes)(T* panels, int width, const T* src, int64_t k_stride, int64_t lanes, int64_t k);
  // panel[k][width], lane i of row k being rows[i][k] for i < lanes, else zero; a null row is zeros.
  void (*pack_rows)(T* panel, int width, const T* const* rows, int lanes, int64_t k);
  // out[rows][width], width being whole vectors: column i of [begin, end) is src[i * step], the others are zero. What
  // lies `ahead` of them is fetched, unless that is 0.
  void (*copy_padded)(T* out, int64_t out_stride, int64_t width, const T* src, int64_t src_stride, int64_t step,
                      int64_t begin, int64_t end, int64_t rows, int64_t ahead);
  // panel[end - begin][width], row k of it being the runs of staged[k / tap_count * row + taps[k % tap_count]]; lanes
  // after the last run are zero. Reads a vector beyond the runs.
  void (*pack_runs)(T* panel, int width, const T* staged, int64_t row, const int32_t* taps, int tap_count,
                    int64_t begin, int64_t end, const StagedRun* runs, int run_count);
};

}  // namespace fastconv::cpu
