// Checks in a forked child.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include "check.hpp"

namespace fastconv::test {

inline constexpr int kPatience = 20;  // seconds; sanitizers on a busy machine are slow

// Forks, runs the body in the child and passes on whether its checks held; a child that hangs or dies fails.
template <class Body>
bool holds_in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(kPatience);
    const int before = failures();
    body();
    ::_exit(failures() == before ? 0 : 1);
  }
  int status = -1;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace fastconv::test
