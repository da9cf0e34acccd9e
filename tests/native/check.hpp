// Checks that need no test framework. A TEST registers itself under its file's stem, which the command line takes.
#pragma once

#include <sstream>
#include <string>

namespace fastconv::test {

struct Registered {
  Registered(const char* file, const char* name, void (*body)());
};

// Counts a failure and prints it; the test goes on.
void fail(const char* file, int line, const std::string& message);
// Failures so far: a forked child returns them as its status.
int failures();
// Says on the output that the rest of the test is not run here, and why.
void skip(const char* reason);

// Whether an emulator runs this program, as the environment variable FASTCONV_EMULATED says.
bool emulated();

// Runs the tests of the files that the command line names, or all of them. Returns the exit status.
int run_tests(int argc, char** argv);

// The context of a check in a loop: where("in", 5, "stride", 2) is " at in=5 stride=2".
template <class... Pairs>
std::string where(const Pairs&... pairs) {
  std::ostringstream text;
  int i = 0;
  ((text << (i == 0 ? " at " : i % 2 == 0 ? " " : "=") << pairs, ++i), ...);
  return text.str();
}

}  // namespace fastconv::test

#define TEST(name)                                                                  \
  static void name();                                                               \
  static const fastconv::test::Registered registered_##name(__FILE__, #name, name); \
  static void name()

// What follows the condition is evaluated only when it does not hold, and goes to where().
#define CHECK(condition, ...)                                                                                    \
  do {                                                                                                           \
    if (!(condition)) fastconv::test::fail(__FILE__, __LINE__, #condition + fastconv::test::where(__VA_ARGS__)); \
  } while (false)

#define CHECK_EQUAL(a, b, ...)                                                                                        \
  do {                                                                                                                \
    const auto left_ = (a);                                                                                           \
    const auto right_ = (b);                                                                                          \
    if (!(left_ == right_)) {                                                                                         \
      fastconv::test::fail(                                                                                           \
          __FILE__, __LINE__,                                                                                         \
          #a " == " #b + fastconv::test::where("left", left_, "right", right_) + fastconv::test::where(__VA_ARGS__)); \
    }                                                                                                                 \
  } while (false)

// Whether evaluating the expression throws the exception.
#define THROWS(exception, expression) \
  ([&] {                              \
    try {                             \
      (void)(expression);             \
    } catch (const exception&) {      \
      return true;                    \
    }                                 \
    return false;                     \
  }())
