// extents.hpp: how volumes are cut and walked; gather.hpp: gather and scatter_add against loops over the definition.
#include "cpu/im2col/gather.hpp"

#include <vector>

#include "arrays.hpp"
#include "check.hpp"

namespace fastconv::cpu {
namespace {

using test::GuardedTensor;
using test::Integers;

ConvShape shape_2d() {
  ConvShape s{.n = 2, .c = 3, .k = 1, .groups = 1, .axis = {}};
  s.axis[1] = {.in = 9, .filter = 3, .stride = 2, .pad_begin = 2, .pad_end = 1, .dilation = 2};
  s.axis[2] = {.in = 11, .filter = 2, .stride = 3, .pad_begin = 1, .pad_end = 4, .dilation = 3};
  return s;
}

std::vector<ConvShape> shapes() {
  ConvShape unit_steps = shape_2d();
  unit_steps.axis[2] = {.in = 13, .filter = 5, .pad_begin = 3, .pad_end = 2};
  ConvShape three_axes = shape_2d();
  three_axes.axis[0] = {.in = 4, .filter = 2, .stride = 2, .pad_begin = 1, .pad_end = 0, .dilation = 2};
  ConvShape only_padding = shape_2d();  // the first outputs see no real cell
  only_padding.axis[1] = {.in = 5, .filter = 2, .stride = 1, .pad_begin = 6, .pad_end = 3};
  std::vector<ConvShape> all{shape_2d(), unit_steps, three_axes, only_padding};
  for (ConvShape& s : all) {
    for (Axis& a : s.axis) a.out = output_extent(a);
  }
  return all;
}

// Calls visit(row, column, n-less coordinates c, d, h, w, inside) for every patch cell of a block, by the definition.
template <class Visit>
void for_each_patch_cell(const ConvShape& s, Range channels, Range block, Visit visit) {
  const auto& [depth, height, width] = s.axis;
  int64_t row = 0;
  for (int64_t c = channels.begin; c < channels.end; ++c)
    for (int64_t t = 0; t < depth.filter; ++t)
      for (int64_t r = 0; r < height.filter; ++r)
        for (int64_t f = 0; f < width.filter; ++f, ++row)
          for (int64_t pixel = block.begin; pixel < block.end; ++pixel) {
            const int64_t q = pixel % width.out, p = pixel / width.out % height.out, z = pixel / width.out / height.out;
            const int64_t d = z * depth.stride + t * depth.dilation - depth.pad_begin;
            const int64_t h = p * height.stride + r * height.dilation - height.pad_begin;
            const int64_t w = q * width.stride + f * width.dilation - width.pad_begin;
            const bool inside = d >= 0 && d < depth.in && h >= 0 && h < height.in && w >= 0 && w < width.in;
            visit(row * block.size() + pixel - block.begin, c, d, h, w, inside);
          }
}

// Calls visit(shape, memory, channels, block) for all shapes, layouts, and blocks that cut rows.
template <class Visit>
void for_each_block(Visit visit) {
  for (const ConvShape& s : shapes()) {
    for (const test::Memory& memory : test::kMemories) {
      for (const Range channels : {Range{0, s.c}, Range{1, 2}}) {
        const int64_t pixels = s.pixels();
        for (const Range block : {Range{0, pixels}, Range{1, pixels / 2 + 1}, Range{pixels - 3, pixels}, Range{2, 2}}) {
          visit(s, memory, channels, block);
        }
      }
    }
  }
}

template <class T>
GuardedTensor<T> make_input(const ConvShape& s, const test::Memory& memory, Integers& integers) {
  GuardedTensor<T> x({s.n, s.c, s.axis[0].in, s.axis[1].in, s.axis[2].in}, memory);
  x.fill([&] { return integers.next<T>(); });
  return x;
}

std::size_t patch_cells(const ConvShape& s, Range channels, Range block) {
  return static_cast<std::size_t>(channels.size() * s.taps() * block.size());
}

template <class T>
void check_gather() {
  Integers integers(1);
  for_each_block([&](const ConvShape& s, const test::Memory& memory, Range channels, Range block) {
    const auto x = make_input<T>(s, memory, integers);
    const std::size_t size = patch_cells(s, channels, block);
    std::vector<T> patches(size + 1, T(-77));
    gather(s, x.readable(), 1, channels, block, patches.data());
    for_each_patch_cell(s, channels, block, [&](int64_t i, int64_t c, int64_t d, int64_t h, int64_t w, bool inside) {
      const T expected = inside ? x(1, c, d, h, w) : T(0);
      CHECK_EQUAL(patches[static_cast<std::size_t>(i)], expected, "memory", memory, "cell", i);
    });
    CHECK_EQUAL(patches[size], T(-77), "memory", memory);
  });
}

template <class T>
void check_scatter_add() {
  Integers integers(2);
  for_each_block([&](const ConvShape& s, const test::Memory& memory, Range channels, Range block) {
    auto dx = make_input<T>(s, memory, integers), expected = dx.template to<T>(test::kNCHW);
    std::vector<T> patches(patch_cells(s, channels, block));
    for (T& cell : patches) cell = integers.next<T>();
    scatter_add(s, dx.tensor(), 1, channels, block, patches.data());
    for_each_patch_cell(s, channels, block, [&](int64_t i, int64_t c, int64_t d, int64_t h, int64_t w, bool inside) {
      if (inside) expected(1, c, d, h, w) += patches[static_cast<std::size_t>(i)];
    });
    CHECK(dx.same_cells(expected), "memory", memory);
    CHECK(dx.guards_intact(), "memory", memory);
  });
}

}  // namespace

TEST(blocks_partition_an_extent) {
  for (int64_t extent = 0; extent <= 40; ++extent) {
    for (int64_t wanted = 0; wanted <= 45; ++wanted) {
      const Blocks blocks(extent, wanted);
      CHECK(blocks.count >= 1 && blocks.size <= std::max<int64_t>(1, wanted), "extent", extent, "wanted", wanted);
      int64_t next = 0;
      for (int64_t i = 0; i < blocks.count; ++i) {
        CHECK_EQUAL(blocks[i].begin, next, "extent", extent, "wanted", wanted);
        CHECK(blocks[i].size() > 0 || extent == 0, "extent", extent, "wanted", wanted);
        next = blocks[i].end;
      }
      CHECK_EQUAL(next, extent, "wanted", wanted);
    }
  }
}

TEST(axes_join_where_one_stride_walks_them) {
  CHECK(joined_stride({{5, 1}, {3, 5}, {2, 15}}) == 1);
  CHECK(joined_stride({{5, 7}, {3, 35}}) == 7);
  CHECK(joined_stride({{5, -2}, {3, -10}}) == -2);
  CHECK(joined_stride({{1, 99}, {3, 4}, {1, 0}}) == 4);  // the stride of a single cell means nothing
  CHECK(joined_stride({{1, 3}, {1, 8}}) == 1);
  CHECK(joined_stride({{5, 0}, {3, 0}}) == 0);
  CHECK(!joined_stride({{5, 1}, {3, 6}}));
  CHECK(!joined_stride({{5, 2}, {3, 1}}));
}

TEST(runs_walk_a_block_in_order) {
  const Extents extents{2, 3, 5};
  for (int64_t begin = 0; begin <= 30; ++begin) {
    for (int64_t end = begin; end <= 30; ++end) {
      int64_t next = begin;
      for_each_run(extents, {begin, end}, [&](int64_t offset, int64_t z, int64_t p, Range q) {
        CHECK_EQUAL(offset, next - begin, "begin", begin, "end", end);
        CHECK_EQUAL((z * 3 + p) * 5 + q.begin, next, "begin", begin, "end", end);
        CHECK(q.size() > 0 && q.end <= 5, "begin", begin, "end", end);
        next += q.size();
      });
      CHECK_EQUAL(next, end, "begin", begin);
    }
  }
}

TEST(gather_copies_what_the_taps_see) {
  check_gather<float>();
  check_gather<double>();
}

TEST(scatter_add_adds_where_the_taps_look) {
  check_scatter_add<float>();
  check_scatter_add<double>();
}

// <gather(x), patches> = <x, scatter_add(patches)>
TEST(scatter_add_is_the_adjoint_of_gather) {
  Integers integers(3);
  for_each_block([&](const ConvShape& s, const test::Memory& memory, Range channels, Range block) {
    const auto x = make_input<double>(s, memory, integers);
    GuardedTensor<double> dx(x.shape(), memory, 0.0);
    std::vector<double> gathered(patch_cells(s, channels, block)), patches = gathered;
    for (double& cell : patches) cell = integers.next<double>();
    gather(s, x.readable(), 0, channels, block, gathered.data());
    scatter_add(s, dx.tensor(), 0, channels, block, patches.data());
    double left = 0, right = 0;
    for (std::size_t i = 0; i < patches.size(); ++i) left += gathered[i] * patches[i];
    x.for_each([&](double cell, auto... at) { right += cell * dx(at...); });
    CHECK_EQUAL(left, right, "memory", memory);
  });
}

}  // namespace fastconv::cpu
