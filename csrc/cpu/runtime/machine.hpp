// What the kernels take a machine to be: the least of the CPUs that they were measured on. Blocks are tied to these
// sizes by static_assert in tuning.hpp, so that who changes one sees what follows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastconv::cpu {

inline constexpr std::size_t kCacheLine = 64;  // bytes

// Bytes of the caches. Zen 3 to 5 have 32 to 48 KB, 512 KB to 1 MB, and 4 MB a core or more; an Emerald Rapids 48 KB,
// 2 MB and less than 2 MB a core. ARM servers lie between.
inline constexpr int64_t kL1Bytes = 32 << 10;
inline constexpr int64_t kL2Bytes = 1 << 20;
inline constexpr int64_t kLastLevelBytes = 16 << 20;  // of all cores together

// When a second thread pays: waking it takes about 5 microseconds.
inline constexpr double kSerialFlops = 1e6;        // arithmetic: the products
inline constexpr double kSerialScalarFlops = 1e5;  // arithmetic by rows of a plane, a tenth of the products' rate
inline constexpr int64_t kSerialFill = 1 << 16;    // cells set to one value
inline constexpr double kSerialCells = 3e4;        // cells read or written once: pools, batch norm
inline constexpr int64_t kEnoughTasks = 8;         // so that two to four threads end at about the same time

}  // namespace fastconv::cpu
