// The arithmetic limit that benchmarks are held against.
#pragma once

namespace fastconv::cpu {

// GFLOP/s of fused multiply-adds that never leave the registers, on `threads` threads, for the instruction set in use.
// The best of several rounds of about 20 ms: the peak is what the machine can do, not what it did on average.
double measure_peak(bool float64, int threads);

}  // namespace fastconv::cpu
