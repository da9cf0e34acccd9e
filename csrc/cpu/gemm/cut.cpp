#include "cut.hpp"

#include <algorithm>

#include "cpu/tuning.hpp"
#include "cpu/walk/extents.hpp"

namespace fastconv::cpu {

using namespace tuning::gemm;

Panels::Panels(int64_t extent, int64_t width, int64_t vector, int64_t singles)
    : extent_(extent), width_(width), singles_(extent % vector <= singles ? extent % vector : 0) {
  const int64_t lanes = ceil_div(extent - singles_, vector) * vector;
  whole_ = lanes / width;
  rest_ = lanes % width;
}

template <class T>
ProductCut cut_product(const Product<T>& p) {
  const GemmKernels<T>& kernel = gemm_kernels<T>();
  ProductCut cut{};
  const Strided<T> left = p.left->in_place({0, p.rows});
  const bool few_columns = p.columns <= kFewColumns * kernel.nr;
  cut.left_in_place = left.data != nullptr && (few_columns || (p.share_right && left.term_stride == 1));
  const bool by_rows = cut.left_in_place && left.term_stride == 1;
  cut.mr = by_rows ? kernel.rows_mr : kernel.mr;
  cut.nr = by_rows ? kernel.rows_nr : kernel.nr;
  cut.left = Panels(p.rows, cut.mr);
  const int lanes = vector_lanes<T>();
  cut.right = Panels(p.columns, cut.nr, lanes, by_rows ? lanes / 4 : 0);
  const int64_t left_panels = cut.left.count(), right_panels = cut.right.count();
  const int64_t fitting = kRightBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(1, cut.right.padded());
  const Blocks blocks(p.terms, by_rows && p.share_right ? std::max(kernel.k_block, fitting) : kernel.k_block);
  cut.term_block = blocks.size;
  cut.term_blocks = blocks.count;
  cut.parts = 1;
  const int64_t task_rows = kTaskRows / cut.mr;
  if (!p.share_left && !p.share_right) {
    // Both operands are packed by each task: large blocks of the result, and parts of the terms for the rest of the
    // tasks.
    const Blocks columns(right_panels, kTaskColumns);
    cut.task_left = Blocks(left_panels, columns.count < kEnoughTasks ? task_rows : kTallRows / cut.mr).size;
    cut.task_right = columns.size;
    const int64_t tasks = ceil_div(left_panels, cut.task_left) * ceil_div(right_panels, cut.task_right);
    const int64_t wanted = std::min(cut.term_blocks, ceil_div(kEnoughTasks, tasks));
    cut.parts = Blocks(cut.term_blocks, ceil_div(cut.term_blocks, wanted)).count;
  } else if (p.share_left) {
    // Patches take long to pack: no two tasks pack the same ones, where they are enough for all.
    const bool in_place = p.right->in_place({0, std::min<int64_t>(p.columns, cut.nr)}).lane_stride == 1;
    const int64_t even =
        in_place ? ceil_div(right_panels, kEnoughTasks / 2) : std::max<int64_t>(1, right_panels / kEnoughTasks);
    cut.task_right = Blocks(right_panels, std::min(kTaskColumns, even)).size;
    const int64_t column_tasks = ceil_div(right_panels, cut.task_right);
    cut.task_left = Blocks(left_panels, ceil_div(left_panels, ceil_div(kEnoughTasks, column_tasks))).size;
  } else {
    cut.task_left = Blocks(left_panels, std::min(task_rows, ceil_div(left_panels, kEnoughTasks))).size;
    const int64_t row_tasks = ceil_div(left_panels, cut.task_left);
    cut.task_right = Blocks(right_panels, ceil_div(right_panels, ceil_div(kEnoughTasks, row_tasks))).size;
  }
  return cut;
}

template ProductCut cut_product(const Product<float>&);
template ProductCut cut_product(const Product<double>&);

}  // namespace fastconv::cpu
