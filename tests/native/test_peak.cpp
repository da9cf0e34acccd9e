// The arithmetic limit: what one thread can do, in either precision.
#include "cpu/runtime/peak.hpp"

#include "check.hpp"

namespace fastconv::cpu {

TEST(a_peak_is_measured) {
  CHECK(measure_peak(false, 1) > 0);
  CHECK(measure_peak(true, 2) > 0);
}

}  // namespace fastconv::cpu
