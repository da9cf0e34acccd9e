// Every measured number of the CPU kernels: its unit, what it trades, where it was measured. A block that stands for a
// cache is tied to it by static_assert. Numbers that follow from registers (tiles, vectors) are with the kernels.
#pragma once

#include "runtime/machine.hpp"

namespace fastconv::cpu::tuning {}  // namespace fastconv::cpu::tuning
