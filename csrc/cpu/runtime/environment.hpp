// The environment variables that C++ reads. One that is empty is as good as one that is not set.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastconv::cpu {

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A variable that is "0" or "1"; `otherwise` where it is not set, std::invalid_argument for any other word.
inline bool environment_switch(const char* name, bool otherwise) {
  const std::string value = environment(name);
  if (value.empty()) return otherwise;
  if (value == "0" || value == "1") return value == "1";
  throw std::invalid_argument(std::string("the environment variable ") + name + " must be 0 or 1, got \"" + value +
                              "\"");
}

// Whether "auto" may choose Winograd.
inline bool winograd_allowed() {
  static const bool allowed = environment_switch("FASTCONV_WINOGRAD", true);
  return allowed;
}

}  // namespace fastconv::cpu
