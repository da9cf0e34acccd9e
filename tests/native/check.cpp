// Runs the tests of the files named on the command line, or all of them.
#include "check.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string_view>
#include <vector>

#include "cpu/isa.hpp"

namespace fastconv::test {
namespace {

struct Test {
  std::string suite;
  const char* name;
  void (*body)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

std::atomic<int> failed{0};
constexpr int kPrinted = 20;

bool run(const Test& test) {
  const int before = failed;
  try {
    test.body();
  } catch (const std::exception& error) {
    fail(test.suite.c_str(), 0, std::string("exception: ") + error.what());
  }
  const bool passed = failed == before;
  std::printf("%s %s.%s\n", passed ? "ok  " : "FAIL", test.suite.c_str(), test.name);
  return passed;
}

}  // namespace

Registered::Registered(const char* file, const char* name, void (*body)()) {
  tests().push_back({std::filesystem::path(file).stem().string(), name, body});
}

void fail(const char* file, int line, const std::string& message) {
  if (failed.fetch_add(1) < kPrinted) std::fprintf(stderr, "%s:%d: %s\n", file, line, message.c_str());
}

void skip(const char* reason) { std::printf("skip: %s\n", reason); }

int failures() { return failed; }

}  // namespace fastconv::test

int main(int argc, char** argv) {
  using namespace fastconv::test;
  const char* isa = std::getenv("FASTCONV_ISA");
  const auto isas = fastconv::cpu::available_isas();
  if (isa != nullptr && std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    std::printf("skipped: this CPU has no %s\n", isa);
    return 77;  // as tests/native/CMakeLists.txt has it
  }
  std::setvbuf(stdout, nullptr, _IONBF, 0);  // a forked child must not print the parent's buffer again
  const std::vector<std::string_view> suites(argv + 1, argv + argc);
  int passed = 0, broken = 0;
  for (const Test& test : tests()) {
    bool wanted = suites.empty();
    for (const std::string_view suite : suites) wanted = wanted || suite == test.suite;
    if (wanted) ++(run(test) ? passed : broken);
  }
  std::printf("%d passed, %d failed\n", passed, broken);
  return passed > 0 && broken == 0 ? 0 : 1;  // a name that matches nothing is a mistake
}
