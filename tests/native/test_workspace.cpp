// Scratch memory: aligned, kept from call to call, refused where it could not be.
#include "cpu/runtime/workspace.hpp"

#include <cstdint>
#include <cstring>

#include "check.hpp"

namespace fastconv::cpu {

TEST(array_bytes_rounds_up_to_cache_lines) {
  CHECK_EQUAL(array_bytes(0, 7, 4), 0u);
  CHECK_EQUAL(array_bytes(1, 1, 4), 64u);
  CHECK_EQUAL(array_bytes(4, 4, 4), 64u);
  CHECK_EQUAL(array_bytes(4, 4, 8), 128u);
  CHECK_EQUAL(array_bytes(3, 11, 4), 192u);
}

TEST(array_bytes_that_no_memory_could_hold) {
  constexpr int64_t big = int64_t{1} << 40;
  CHECK(THROWS(std::bad_alloc, array_bytes(big, big, 4)));
  CHECK(THROWS(std::bad_alloc, array_bytes(big, 1 << 22, 8)));
  CHECK_EQUAL(array_bytes(big, 1 << 10, 4), std::size_t{1} << 52);
}

TEST(memory_that_cannot_be_had_is_told) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return test::skip("a sanitizer ends the process where it has no memory to give");
#endif
  std::string said;
  try {
    const Workspace memory(std::size_t{1} << 60);
  } catch (const std::bad_alloc& error) {
    said = error.what();
  }
  CHECK(said.find("1.07e+09 GiB of scratch memory") != std::string::npos, "said", said);
}

TEST(workspace_is_aligned_and_kept) {
  const float* first = nullptr;
  {
    const Workspace memory(1000);
    first = memory.at<float>(0);
    CHECK_EQUAL(reinterpret_cast<std::uintptr_t>(first) % kCacheLine, 0u);
    memory.at<float>(0)[0] = 1;
    memory.at<float>(996)[0] = 2;
    CHECK_EQUAL(memory.at<float>(0) + 249, memory.at<float>(996));
  }
  const Workspace smaller(500);
  CHECK(smaller.at<float>(0) == first);
}

TEST(workspaces_of_one_thread_share_nothing) {
  const Workspace outer(300);
  const Workspace inner(200), innermost(200), fourth(100);
  const auto apart = [](const Workspace& a, std::size_t a_size, const Workspace& b, std::size_t b_size) {
    return a.at<char>(a_size) <= b.at<char>(0) || a.at<char>(0) >= b.at<char>(b_size);
  };
  CHECK(apart(inner, 200, outer, 300));
  CHECK(apart(innermost, 200, outer, 300));
  CHECK(apart(innermost, 200, inner, 200));
  CHECK(apart(fourth, 100, innermost, 200));
}

TEST(workspace_grows) {
  for (const std::size_t bytes : {std::size_t{10}, std::size_t{1} << 12, (std::size_t{64} << 20) + 1, std::size_t{3}}) {
    const Workspace memory(bytes);
    std::memset(memory.at<char>(0), 1, bytes);
    CHECK_EQUAL(memory.at<char>(bytes - 1)[0], 1);
  }
}

}  // namespace fastconv::cpu
