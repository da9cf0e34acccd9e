// The names of algorithms.
#include "ops.hpp"

#include <stdexcept>

namespace fastconv {

const char* to_string(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::im2col:
      return "im2col";
    case Algorithm::implicit:
      return "implicit";
    case Algorithm::winograd:
      return "winograd";
    case Algorithm::direct:
      return "direct";
    case Algorithm::wgmma:
      return "wgmma";
    case Algorithm::automatic:
      break;
  }
  return "auto";
}

Algorithm parse_algorithm(const std::string& name) {
  for (const Algorithm a : {Algorithm::automatic, Algorithm::im2col, Algorithm::implicit, Algorithm::winograd,
                            Algorithm::direct, Algorithm::wgmma}) {
    if (name == to_string(a)) return a;
  }
  throw std::invalid_argument(
      "algorithm must be \"auto\", \"im2col\", \"implicit\", \"winograd\", \"direct\" or, on a GPU, \"wgmma\", got \"" +
      name + "\"");
}

}  // namespace fastconv
