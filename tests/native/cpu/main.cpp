// The CPU's tests, on the instruction set that FASTCONV_ISA names.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "check.hpp"
#include "cpu/runtime/isa.hpp"

int main(int argc, char** argv) {
  const char* isa = std::getenv("FASTCONV_ISA");
  const auto isas = fastconv::cpu::available_isas();
  if (isa != nullptr && std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    std::printf("skipped: this CPU has no %s\n", isa);
    return 77;  // as tests/native/CMakeLists.txt has it
  }
  return fastconv::test::run_tests(argc, argv);
}
