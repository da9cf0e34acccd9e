// A product that is ready to run: cut, with its scratch memory laid out.
#pragma once

#include <utility>

#include "cpu/runtime/job.hpp"
#include "cut.hpp"

namespace fastconv::cpu {

// The scratch arrays of a product. An operand is packed once for all tasks or by each task for itself; one of the two
// handles is used.
template <class T>
struct ProductArrays {
  SharedArray<T> shared_left, shared_right, row_bias, column_bias, shared_sums;
  ThreadArray<T> own_left, own_right, own_sums;
  ThreadArray<int64_t> row_offsets, column_offsets;
  ThreadArray<std::byte> packing;
};

template <class T>
class ProductJob final : public Job {
 public:
  // WorkspaceExceeded, naming the algorithm, if one thread's arrays do not fit into the limit in bytes.
  ProductJob(const Variant& variant, Product<T> product, std::size_t workspace_limit, const char* algorithm);
  void run(std::byte* memory) const noexcept override;

 private:
  void pack_shared(const Operand<T>& operand, const Panels& panels, T* packed, const Arrays& at) const;

  Product<T> product_;
  ProductCut cut_;
  ProductArrays<T> arrays_;
};

}  // namespace fastconv::cpu
