// Every pass as convolutions of one group: the groups of a convolution, the phases and groups of an input gradient.
#pragma once

#include <utility>

#include "adjoint.hpp"
#include "call.hpp"
#include "extents.hpp"

namespace fastconv::cpu {

inline constexpr int64_t kDescribedPhases = 32;  // of a stride: a description stops looking for other variants there

inline ConvShape one_group(const ConvShape& s) {
  ConvShape group = s;
  group.c = s.group_c();
  group.k = s.group_k();
  group.groups = 1;
  return group;
}

template <class T>
Tensor<T> channels_from(const Tensor<T>& t, int64_t channel) {
  return {t.at(0, channel), t.stride};
}

inline constexpr Variant kNoTerms{"fill", "no sum has a term: the outputs are the bias, or zero"};
inline constexpr Variant kGaps{"fill", "no tap reaches some inputs: all are set at once"};

// Sets every output to what an empty sum gives.
template <class T>
class FillJob final : public Job {
 public:
  FillJob(const Variant& variant, const ConvCall<T>& call)
      : Job(variant), shape_(call.shape), out_(call.out), finish_(call.finish), pass_(call.pass) {}
  void run(std::byte*) const noexcept override {
    const ConvShape& s = shape_;
    const auto value = [&](int64_t channel) { return finish_(T(0), channel); };
    if (pass_ == Pass::forward) return fill(out_, s.n, s.k, out_extents(s), value);
    if (pass_ == Pass::input) return fill(out_, s.n, s.c, in_extents(s), value);
    fill(out_, s.k, s.group_c(), filter_extents(s), value);
  }

 private:
  ConvShape shape_;
  Tensor<T> out_;
  Finish<T> finish_;
  Pass pass_;
};

// Calls visit(shape, taps, inputs) for each phase of the stride of an input gradient, with all groups.
template <class T, class Visit>
void for_each_phase(const ConvCall<T>& call, Jobs& jobs, Visit visit) {
  bool gaps = false;
  const auto ignore = [](const auto&...) {};
  fastconv::for_each_phase(call.shape, call.b, call.out, ignore, [&](const auto&...) { gaps = true; });
  // At once, with the inputs that taps reach: phase by phase, each line of dx would be written several times.
  if (gaps) jobs.push_back(std::make_unique<FillJob<T>>(kGaps, call));
  int64_t phases = 0;
  const auto phase = [&](const ConvShape& shape, const Tensor<const T>& taps, const Tensor<T>& inputs) {
    if (!jobs.described() || ++phases <= kDescribedPhases) visit(shape, taps, inputs);
  };
  fastconv::for_each_phase(call.shape, call.b, call.out, phase, ignore);
}

// Calls visit(correlation) for each convolution of one group that a forward pass or an input gradient is made of: its
// groups, or the groups of each phase of the stride, which go from dy's channels to dx's.
template <class T, class Visit>
void for_each_correlation(const ConvCall<T>& call, Jobs& jobs, Visit visit) {
  const ConvShape& s = call.shape;
  const int64_t groups = jobs.described() ? 1 : s.groups;
  if (call.pass == Pass::forward) {
    const ConvShape group = one_group(s);
    for (int64_t g = 0, c = 0, k = 0; g < groups; ++g, c += group.c, k += group.k) {
      visit(Correlation<T>{group,
                           channels_from(call.a, c),
                           {call.b.at(k, 0), call.b.stride},
                           call.finish.from(k),
                           channels_from(call.out, k)});
    }
    return;
  }
  for_each_phase(call, jobs, [&](const ConvShape& shape, const Tensor<const T>& taps, const Tensor<T>& inputs) {
    ConvShape group = one_group(shape);
    std::swap(group.c, group.k);
    for (int64_t g = 0, c = 0, k = 0; g < groups; ++g, c += group.k, k += group.c) {
      Tensor<const T> filters{taps.at(k, 0), taps.stride};
      std::swap(filters.stride[0], filters.stride[1]);
      visit(Correlation<T>{group, channels_from(call.a, k), filters, call.finish.from(c), channels_from(inputs, c)});
    }
  });
}

// Calls visit(reduction) for the weight gradient of each group.
template <class T, class Visit>
void for_each_reduction(const ConvCall<T>& call, Jobs& jobs, Visit visit) {
  const ConvShape group = one_group(call.shape);
  const int64_t groups = jobs.described() ? 1 : call.shape.groups;
  for (int64_t g = 0, c = 0, k = 0; g < groups; ++g, c += group.c, k += group.k) {
    visit(Reduction<T>{group, channels_from(call.a, k), channels_from(call.b, c),
                       Tensor<T>{call.out.at(k, 0), call.out.stride}});
  }
}

}  // namespace fastconv::cpu
