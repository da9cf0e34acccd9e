// Whether there is a device to run on.
#pragma once

namespace fastconv::cuda {

// std::runtime_error where there is no driver, no device, or a driver that is too old, each in its own words.
void require_device();

}  // namespace fastconv::cuda
