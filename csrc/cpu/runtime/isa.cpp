#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace fastconv::cpu {

#if defined(__x86_64__)
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
#if defined(__aarch64__)
#define FASTCONV_LEAST neon
#else
#define FASTCONV_LEAST baseline
#endif
// The instruction set that every CPU of the architecture has.
namespace FASTCONV_LEAST {
extern const Kernels kernels;
}

namespace {

std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (has_avx2 && has_avx512) found.push_back(&avx512::kernels);
  if (has_avx2) found.push_back(&avx2::kernels);
#endif
  found.push_back(&FASTCONV_LEAST::kernels);
  return found;
}

const Kernels& choose() {
  const char* wanted = std::getenv("FASTCONV_ISA");
  if (wanted == nullptr || *wanted == '\0') return *runnable().front();
  std::string names;
  for (const Kernels* candidate : runnable()) {
    if (std::string(candidate->isa) == wanted) return *candidate;
    names += (names.empty() ? "" : ", ") + std::string(candidate->isa);
  }
  throw std::invalid_argument("FASTCONV_ISA is \"" + std::string(wanted) +
                              "\", but this CPU and build offer: " + names);
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
