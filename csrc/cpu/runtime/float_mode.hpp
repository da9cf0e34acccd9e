// How a thread rounds, and whether it flushes denormal numbers to zero.
//
// Denormals are the numbers nearest to zero (float32: below 1.2e-38). A multiply-add that meets one takes an Intel CPU
// a hundred times as long (an AMD Zen no longer than any); who has no use for them can have them read and written as
// zeros. The mode belongs to a thread: a kernel gives its threads that of its caller, so that results do not depend on
// how many there are.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastconv::cpu {

using FloatMode = uint64_t;

#if defined(__x86_64__)
inline constexpr FloatMode kFlushDenormal = 0x8040;  // of MXCSR: denormal results, denormal operands
inline FloatMode float_mode() { return __builtin_ia32_stmxcsr() & ~0x3fu; }  // without the exceptions that were seen
inline void set_float_mode(FloatMode mode) { __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
inline constexpr FloatMode kFlushDenormal = FloatMode{1} << 24;  // of FPCR: both
inline FloatMode float_mode() {
  FloatMode mode = 0;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
inline constexpr FloatMode kFlushDenormal = 0;  // there is no such mode
inline FloatMode float_mode() { return 0; }
inline void set_float_mode(FloatMode) {}
#endif

inline std::atomic<bool> flush_denormal_wanted{false};  // for the whole process

// Returns whether this CPU can do it.
inline bool set_flush_denormal(bool wanted) {
  flush_denormal_wanted.store(wanted && kFlushDenormal != 0, std::memory_order_relaxed);
  return kFlushDenormal != 0;
}
inline bool flush_denormal() { return flush_denormal_wanted.load(std::memory_order_relaxed); }

// Gives this thread a mode, and its own back at the end.
class FloatModeScope {
 public:
  explicit FloatModeScope(FloatMode mode) : before_(float_mode()), changed_(mode != before_) {
    if (changed_) set_float_mode(mode);
  }
  ~FloatModeScope() {
    if (changed_) set_float_mode(before_);
  }
  FloatModeScope(const FloatModeScope&) = delete;
  FloatModeScope& operator=(const FloatModeScope&) = delete;

 private:
  FloatMode before_;
  bool changed_;
};

// The mode that a call of this thread computes in.
inline FloatMode call_mode() { return flush_denormal() ? float_mode() | kFlushDenormal : float_mode(); }

}  // namespace fastconv::cpu
