// A call as jobs: first each is planned, which may fail and writes nothing, then all run, which cannot fail.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "ops.hpp"
#include "scratch.hpp"
#include "workspace.hpp"

namespace fastconv::cpu {

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
  virtual void run(std::byte* memory) const noexcept = 0;

 protected:
  Scratch scratch_;

 private:
  Variant variant_;
};

// The jobs of a call, which run one after the other in the same memory.
class Jobs {
 public:
  // A description is never run: of many like groups and phases it has the first, and it takes no memory.
  enum class Purpose { call, description };
  explicit Jobs(Purpose purpose = Purpose::call) : described_(purpose == Purpose::description) {}
  bool described() const { return described_; }

  void push_back(std::unique_ptr<const Job> job) { jobs_.push_back(std::move(job)); }
  // Forgets all but the first ones: a plan that does not fit after all.
  void keep(std::size_t count) { jobs_.resize(count); }

  // Memory beside the jobs' own, for an array that one job makes and a later one reads. All jobs that name the same
  // `use` share it, so of one use only one array may be waiting to be read.
  std::byte* between(std::size_t use, std::size_t bytes) {
    alignas(kCacheLine) static std::byte nothing[kCacheLine];
    if (described_) return nothing;
    if (between_.size() <= use) between_.resize(use + 1);
    auto& blocks = between_[use];
    if (blocks.empty() || blocks.back().second < bytes)
      blocks.emplace_back(std::make_unique<const Workspace>(bytes), bytes);
    return blocks.back().first->at<std::byte>(0);
  }

  std::size_t size() const { return jobs_.size(); }
  auto begin() const { return jobs_.begin(); }
  auto end() const { return jobs_.end(); }
  std::size_t bytes() const {
    std::size_t most = 0;
    for (const auto& job : jobs_) most = std::max(most, job->bytes());
    return most;
  }

 private:
  bool described_;
  std::vector<std::unique_ptr<const Job>> jobs_;
  std::vector<std::vector<std::pair<std::unique_ptr<const Workspace>, std::size_t>>> between_;
};

}  // namespace fastconv::cpu
