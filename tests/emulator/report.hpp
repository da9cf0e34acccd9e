// What a call that may end the process says on standard error.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace fastconv::test {

// Runs the body in a forked child. Returns what it wrote on standard error; nothing if it ended well.
template <class Body>
std::string report_of(Body body) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::alarm(60);
    body();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t size; (size = ::read(ends[0], piece, sizeof(piece))) > 0;)
    text.append(piece, static_cast<std::size_t>(size));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return ended_well || !text.empty() ? text : "no report, but the child failed";
}

}  // namespace fastconv::test
