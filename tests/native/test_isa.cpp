// Instruction sets: each one that the CPU has can be forced, and runs.
#include "cpu/runtime/isa.hpp"

#include <cstdlib>
#include <stdexcept>

#include "child.hpp"

namespace fastconv::cpu {
namespace {

// The choice is made once a process, so each is made in a child.
template <class Body>
bool holds_with_isa(const std::string& name, Body body) {
  return test::holds_in_child([&] {
    ::setenv("FASTCONV_ISA", name.c_str(), 1);
    body();
  });
}

}  // namespace

TEST(each_instruction_set_can_be_forced) {
  CHECK_EQUAL(available_isas().back(), NATIVE_TESTS_LEAST_ISA);  // which every CPU has
  for (const std::string& isa : available_isas()) {
    const bool holds = holds_with_isa(isa, [&] {
      CHECK_EQUAL(kernels().isa, isa);
      CHECK(peak_kernels<float>().fma(100) > 0);
      CHECK_EQUAL(peak_kernels<float>().fma(100), 2 * peak_kernels<double>().fma(100));
    });
    CHECK(holds, "isa", isa);
  }
}

TEST(an_empty_name_is_no_name) {
  CHECK(holds_with_isa("", [] { CHECK_EQUAL(kernels().isa, available_isas().front()); }));
}

TEST(an_unknown_instruction_set_is_an_error) {
  CHECK(holds_with_isa("sse9", [] { CHECK(THROWS(std::invalid_argument, kernels())); }));
}

}  // namespace fastconv::cpu
