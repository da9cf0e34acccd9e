// The problems of tests/cases.txt, which the tests in Python read too.
#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cases_text.hpp"
#include "conv_shape.hpp"

namespace fastconv::test {

struct ConvCase {
  std::string name;
  ConvShape shape;
};

// A line of the text: a name, and keywords with a number or with two for each axis, "a" as "a:a".
class CaseLine {
 public:
  using Pair = std::pair<int64_t, int64_t>;
  explicit CaseLine(const std::string& line) {
    std::istringstream words(line);
    words >> name_;
    for (std::string word; words >> word;) fields_.push_back(word);
  }

  const std::string& name() const { return name_; }

  std::vector<Pair> pairs(const std::string& key) const {
    std::vector<Pair> found;
    for (const std::string& field : fields_) {
      if (!field.starts_with(key + "=")) continue;
      std::istringstream parts(field.substr(key.size() + 1));
      for (std::string part; std::getline(parts, part, ',');) {
        const std::size_t colon = part.find(':');
        found.emplace_back(std::stoll(part), std::stoll(colon == std::string::npos ? part : part.substr(colon + 1)));
      }
    }
    return found;
  }

  // For one of `rank` axes; `otherwise` where the line does not have the key.
  Pair of_axis(const std::string& key, std::size_t i, int64_t otherwise) const {
    const auto found = pairs(key);
    if (found.empty()) return {otherwise, otherwise};
    return found.size() == 1 ? found[0] : found.at(i);
  }

  int64_t size(const std::string& key, std::size_t i) const { return pairs(key).at(i).first; }

  // The last of the three axes are those that the shape of x has; `filters` are the extents of the windows along them.
  std::array<Axis, 3> axes(const std::vector<Pair>& filters) const {
    std::array<Axis, 3> axes{};
    const std::size_t rank = pairs("x").size() - 2;
    for (std::size_t i = 0; i < rank; ++i) {
      const auto [begin, end] = of_axis("padding", i, 0);
      Axis& a = axes[3 - rank + i];
      a = {.in = size("x", i + 2),
           .filter = (filters.size() == 1 ? filters[0] : filters.at(i)).first,
           .pad_begin = begin,
           .pad_end = end,
           .dilation = of_axis("dilation", i, 1).first};
      a.stride = of_axis("stride", i, fields_are_of_a_pool() ? a.filter : 1).first;
    }
    for (Axis& a : axes) a.out = output_extent(a);
    return axes;
  }

 private:
  bool fields_are_of_a_pool() const { return pairs("w").empty(); }

  std::string name_;
  std::vector<std::string> fields_;
};

inline std::vector<CaseLine> case_lines(const std::string& section) {
  std::istringstream text(kCases);
  std::vector<CaseLine> lines;
  bool inside = false;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with('[')) inside = line == "[" + section + "]";
    if (inside && !line.empty() && line[0] != '[' && line[0] != '#') lines.emplace_back(line);
  }
  if (lines.empty()) throw std::invalid_argument("cases.txt has no section " + section);
  return lines;
}

inline std::vector<ConvCase> conv_cases(const std::string& section) {
  std::vector<ConvCase> cases;
  for (const CaseLine& line : case_lines(section)) {
    const auto w = line.pairs("w");
    cases.push_back({line.name(),
                     {.n = line.size("x", 0),
                      .c = line.size("x", 1),
                      .k = w.at(0).first,
                      .groups = line.of_axis("groups", 0, 1).first,
                      .axis = line.axes({w.begin() + 2, w.end()})}});
  }
  return cases;
}

inline std::vector<PoolShape> pool_cases(const std::string& section) {
  std::vector<PoolShape> cases;
  for (const CaseLine& line : case_lines(section)) {
    cases.push_back({.n = line.size("x", 0), .c = line.size("x", 1), .axis = line.axes(line.pairs("kernel_size"))});
  }
  return cases;
}

}  // namespace fastconv::test
