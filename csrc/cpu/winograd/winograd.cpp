// Which way Winograd takes: the size of a tile, and the order of the products.
#include "winograd.hpp"

#include <array>
#include <span>
#include <string>
#include <vector>

#include "cpu/walk/groups.hpp"
#include "schedules.hpp"
#include "tiles.hpp"

namespace fastconv::cpu::winograd {
namespace {

// In the order of Schedule.
constexpr std::array<Variant, 6> kSchedules{{
    {"by tiles", "a second-level cache holds the transformed filters, and the tiles are enough to share out"},
    {"by filters", "the transformed filters pass a second-level cache, or the tiles are too few to share out"},
    {"adjoint", "dy has far fewer tiles than dx, which has no padding"},
    {"by parts", "the sums are small beside the tiles: each task keeps its own"},
    {"by panels", "all tiles are one block: each task makes some filters of dw from sums of its own"},
    {"by blocks", "the tiles pass the caches: block by block they add to the sums of all filters"},
}};

// Each schedule of each filtering.
std::span<const Variant> variants() {
  struct Text {
    std::string name, reason;
  };
  static const std::vector<Text> texts = [] {
    std::vector<Text> all;
    for (const Filtering& filtering : kFilterings) {
      for (const auto& [name, reason] : kSchedules) {
        all.push_back({std::string(filtering.name) + " " + name, std::string(filtering.reason) + "; " + reason});
      }
    }
    return all;
  }();
  static const std::vector<Variant> variants = [] {
    std::vector<Variant> all;
    for (const auto& [name, reason] : texts) all.push_back({name.c_str(), reason.c_str()});
    return all;
  }();
  return variants;
}

// The ladder of the forward pass and the input gradient; wgrad.cpp has the weight gradient's.
template <class T>
Schedule choose(const ConvCall<T>& call, const ConvShape& correlation) {
  if (call.pass == Pass::input && !call.finish.needed() && adjoint_pays<T>(call.shape)) return Schedule::adjoint;
  if (tiles_pay<T>(correlation)) return Schedule::tiles;
  return Schedule::filters;
}

template <class T>
void plan(const ConvCall<T>& call, std::size_t workspace_limit, Jobs& jobs) {
  if (call.pass == Pass::weight) {
    for_each_reduction(call, jobs,
                       [&](const Reduction<T>& group) { jobs.push_back(weight_job(group, workspace_limit)); });
    return;
  }
  for_each_correlation(call, jobs, [&](const Correlation<T>& group) {  // there is one group, and one phase
    const Schedule schedule = choose(call, group.shape);
    jobs.push_back(schedule == Schedule::adjoint ? adjoint_job(call, workspace_limit)
                   : schedule == Schedule::tiles ? tiles_job(group, workspace_limit)
                                                 : filters_job(group, workspace_limit));
  });
}

}  // namespace

bool serves(Pass, const ConvShape& s) {
  const auto plain = [&](const Axis& a) { return a.filter == s.axis[1].filter && a.stride == 1 && a.dilation == 1; };
  return s.groups == 1 && (s.axis[1].filter == 3 || s.axis[1].filter == 5) && s.axis[0].pointwise() &&
         s.axis[0].in == 1 && plain(s.axis[1]) && plain(s.axis[2]);
}

Variant variant_of(const TileGrid& grid, Schedule schedule) {
  return variants()[static_cast<std::size_t>(grid.filtering) * kSchedules.size() + static_cast<std::size_t>(schedule)];
}

template <class T>
const ConvAlgorithm<T>& algorithm() {
  static const ConvAlgorithm<T> winograd{Algorithm::winograd, variants(), serves, plan<T>};
  return winograd;
}

template const ConvAlgorithm<float>& algorithm();
template const ConvAlgorithm<double>& algorithm();

}  // namespace fastconv::cpu::winograd
