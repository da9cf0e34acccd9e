// A call as jobs: first each is planned, which may fail and writes nothing, then all run, which cannot fail.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "scratch.hpp"
#include "workspace.hpp"

namespace fastconv::cpu {

// One of the ways in which an algorithm computes something, and why a call takes it.
struct Variant {
  const char* name;
  const char* reason;

  friend bool operator==(const Variant& a, const Variant& b) { return a.name == b.name; }
};

// A part of a call that is ready to run. Its constructor cuts the work, lays out the scratch memory and checks the
// limit; whatever can be refused is refused there.
class Job {
 public:
  explicit Job(const Variant& variant) : variant_(variant) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  const Variant& variant() const { return variant_; }
  virtual std::size_t bytes() const { return scratch_.bytes(); }  // of scratch memory
  virtual void run(std::byte* memory) const = 0;

 protected:
  Scratch scratch_;

 private:
  Variant variant_;
};

using Jobs = std::vector<std::unique_ptr<const Job>>;

inline std::size_t bytes_of(const Jobs& jobs) {
  std::size_t most = 0;
  for (const auto& job : jobs) most = std::max(most, job->bytes());
  return most;
}

// One after the other, in the same memory.
inline void run(const Jobs& jobs) {
  const Workspace memory(bytes_of(jobs));
  for (const auto& job : jobs) job->run(memory.at<std::byte>(0));
}

}  // namespace fastconv::cpu
