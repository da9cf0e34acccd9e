// The emulated device is always there.
#include "cuda/runtime/device.hpp"

namespace fastconv::cuda {

void require_device() {}

}  // namespace fastconv::cuda
