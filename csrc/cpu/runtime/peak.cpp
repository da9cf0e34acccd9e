#include "peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "isa.hpp"
#include "thread_pool.hpp"

namespace fastconv::cpu {

double measure_peak(bool float64, int threads) {
  using Clock = std::chrono::steady_clock;
  const auto fma = float64 ? peak_kernels<double>().fma : peak_kernels<float>().fma;
  const auto seconds = [](Clock::time_point from) {
    return std::chrono::duration<double>(Clock::now() - from).count();
  };
  int64_t rounds = 1 << 16;
  double best = 0;
  for (int trial = 0; trial < 8; ++trial) {
    std::atomic<double> operations{0};
    const auto start = Clock::now();
    parallel_for(threads, threads, [&](int64_t, int) noexcept { operations.fetch_add(fma(rounds)); });
    const double elapsed = seconds(start);
    best = std::max(best, operations.load() / elapsed * 1e-9);
    rounds = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(rounds) * 0.02 / elapsed));
  }
  return best;
}

}  // namespace fastconv::cpu
