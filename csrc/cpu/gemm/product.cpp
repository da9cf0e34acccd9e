#include "product.hpp"

#include <algorithm>

#include "cpu/runtime/thread_pool.hpp"
#include "cpu/tuning.hpp"
#include "task.hpp"

namespace fastconv::cpu {

template <class T>
ProductJob<T>::ProductJob(const Variant& variant, Product<T> product, std::size_t workspace_limit,
                          const char* algorithm)
    : Job(variant), product_(std::move(product)), cut_(cut_product(product_)) {
  const Product<T>& p = product_;
  const int64_t rows = cut_.left.padded(), columns = cut_.right.padded(), tile = cut_.mr * cut_.nr;
  if (p.share_left && !cut_.left_in_place) arrays_.shared_left = scratch_.shared<T>(rows, p.terms);
  if (!p.share_left && !cut_.left_in_place)
    arrays_.own_left = scratch_.each<T>(cut_.task_left * cut_.mr, cut_.term_block);
  if (p.share_right) arrays_.shared_right = scratch_.shared<T>(columns, p.terms);
  if (!p.share_right) arrays_.own_right = scratch_.each<T>(cut_.task_right * cut_.nr, cut_.term_block);
  if (p.row_bias.data != nullptr) arrays_.row_bias = scratch_.shared<T>(rows);
  if (p.column_bias.data != nullptr) arrays_.column_bias = scratch_.shared<T>(columns);
  arrays_.row_offsets = scratch_.each<int64_t>(cut_.task_left, cut_.mr);
  arrays_.column_offsets = scratch_.each<int64_t>(cut_.task_right, cut_.nr);
  // The sums so far: a task's own, or, where the terms are cut into parts, one for each part.
  if (cut_.parts > 1) {
    arrays_.shared_sums = scratch_.shared<T>(cut_.parts * cut_.left.count(), cut_.right.count() * tile);
  } else if (cut_.term_blocks > 1) {
    arrays_.own_sums = scratch_.each<T>(cut_.task_left, cut_.task_right * tile);
  }
  const std::size_t packing = std::max(p.left->scratch_bytes(cut_.mr), p.right->scratch_bytes(cut_.nr));
  arrays_.packing = scratch_.each<std::byte>(static_cast<int64_t>(packing));
  scratch_.fit(workspace_limit, threads_for(p.flops()), algorithm);
}

template <class T>
void ProductJob<T>::pack_shared(const Operand<T>& operand, const Panels& panels, T* packed, const Arrays& at) const {
  const Blocks some(panels.count(), std::min(tuning::gemm::kPackedPanels, ceil_div(panels.count(), kEnoughTasks)));
  parallel_for(cut_.term_blocks * some.count, scratch_.threads(), [&](int64_t task, int slot) noexcept {
    const int64_t block = task / some.count;
    const Range terms{block * cut_.term_block, std::min(product_.terms, (block + 1) * cut_.term_block)};
    const Range range = some[task % some.count];
    T* first = packed + panels.padded() * terms.begin + panels.first(range.begin) * terms.size();
    pack_panels(operand, panels, range, terms, first, at(arrays_.packing, slot));
  });
}

template <class T>
void ProductJob<T>::run(std::byte* memory) const noexcept {
  const Product<T>& p = product_;
  const Arrays at(scratch_, memory);
  if (p.share_left && !cut_.left_in_place) pack_shared(*p.left, cut_.left, at(arrays_.shared_left), at);
  if (p.share_right) pack_shared(*p.right, cut_.right, at(arrays_.shared_right), at);
  for (int64_t i = 0; p.row_bias.data != nullptr && i < cut_.left.padded(); ++i)
    at(arrays_.row_bias)[i] = i < p.rows ? p.row_bias[i] : T(0);
  for (int64_t j = 0; p.column_bias.data != nullptr && j < cut_.right.padded(); ++j)
    at(arrays_.column_bias)[j] = j < p.columns ? p.column_bias[j] : T(0);
  const Blocks left(cut_.left.count(), cut_.task_left), right(cut_.right.count(), cut_.task_right);
  const auto task_of = [&](int64_t block, int64_t part, int slot) noexcept {
    return Task<T>(p, cut_, arrays_, at, left[block / right.count], right[block % right.count], part, slot);
  };
  parallel_for(cut_.parts * left.count * right.count, scratch_.threads(),
               [&](int64_t task, int slot) noexcept { task_of(task / cut_.parts, task % cut_.parts, slot).run(); });
  if (cut_.parts == 1) return;
  parallel_for(left.count * right.count, scratch_.threads(),
               [&](int64_t block, int slot) noexcept { task_of(block, 0, slot).add_parts(); });
}

template class ProductJob<float>;
template class ProductJob<double>;

}  // namespace fastconv::cpu
