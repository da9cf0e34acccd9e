#include "isa.hpp"

#include <stdexcept>

#include "environment.hpp"

namespace fastconv::cpu {

namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace baseline {
extern const Kernels kernels;
}
namespace neon {
extern const Kernels kernels;
}

namespace {

// Widest first. A build has all of its architecture, or those that the CMake option FASTCONV_ISAS names; baseline and
// neon run on every CPU of theirs.
std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found;
#ifdef FASTCONV_HAS_avx512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma")) {
    found.push_back(&avx512::kernels);
  }
#endif
#ifdef FASTCONV_HAS_avx2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
#endif
#ifdef FASTCONV_HAS_baseline
  found.push_back(&baseline::kernels);
#endif
#ifdef FASTCONV_HAS_neon
  found.push_back(&neon::kernels);
#endif
  return found;
}

const Kernels& choose() {
  const std::vector<const Kernels*> offered = runnable();
  if (offered.empty()) {
    throw std::runtime_error(
        "this CPU has none of the instruction sets that this build of fastconv is for; build it "
        "with the CMake option FASTCONV_ISAS=all");
  }
  const std::string wanted = environment("FASTCONV_ISA");
  if (wanted.empty()) return *offered.front();
  std::string names;
  for (const Kernels* candidate : offered) {
    if (candidate->isa == wanted) return *candidate;
    names += (names.empty() ? "" : ", ") + std::string(candidate->isa);
  }
  throw std::invalid_argument("FASTCONV_ISA is \"" + wanted + "\", but this CPU and build offer: " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* candidate : runnable()) names.emplace_back(candidate->isa);
  return names;
}

}  // namespace fastconv::cpu
