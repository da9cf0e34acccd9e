// What a thread has begun and not yet waited for. Tasks and groups by number, in rings: those from `made` on are open,
// and so are the groups from `groups_done` on.
#pragma once

#include "machine.hpp"

namespace fastconv::emulator {

class Queue {
 public:
  void clear() { begun_ = made_ = groups_closed_ = groups_done_ = 0; }
  bool empty() const { return made_ == begun_; }

  bool push(const Task& task) {
    if (begun_ - made_ == kMaxTasks) fault("too many asynchronous copies or products are open");
    tasks_[begun_++ % kMaxTasks] = task;
    return true;
  }
  void close_group() {
    if (groups_closed_ - groups_done_ == kMaxGroups) fault("too many asynchronous groups are open");
    group_end_[groups_closed_++ % kMaxGroups] = begun_;
  }
  bool next_due(unsigned groups, Task& task) {
    while (groups_closed_ - groups_done_ > groups) {
      if (made_ != group_end_[groups_done_ % kMaxGroups]) {
        task = tasks_[made_++ % kMaxTasks];
        return true;
      }
      ++groups_done_;
    }
    return false;
  }

 private:
  static constexpr unsigned kMaxTasks = 512, kMaxGroups = 64;
  Task tasks_[kMaxTasks];
  unsigned begun_ = 0, made_ = 0;
  unsigned group_end_[kMaxGroups];  // the number of the first task after the group
  unsigned groups_closed_ = 0, groups_done_ = 0;
};

}  // namespace fastconv::emulator
