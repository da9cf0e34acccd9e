// A family of kernels for the types that are computed with.
#pragma once

namespace fastconv::cpu {

template <template <class> class Table>
struct FloatTables {
  Table<float> float32;
  Table<double> float64;
};

}  // namespace fastconv::cpu
