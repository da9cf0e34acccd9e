#include "check.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string_view>
#include <vector>

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

bool emulated() { return std::getenv("FASTCONV_EMULATED") != nullptr; }

int failures() { return failed; }

int run_tests(int argc, char** argv) {
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

}  // namespace fastconv::test
