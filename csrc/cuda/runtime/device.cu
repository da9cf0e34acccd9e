#include "device.hpp"

#include "launch.hpp"

namespace fastconv::cuda {

void require_device() {
  int devices = 0, driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return;
  if (status == cudaSuccess || status == cudaErrorNoDevice) {
    throw std::runtime_error(
        "no CUDA device: the driver is there, but it shows none (look at nvidia-smi and CUDA_VISIBLE_DEVICES)");
  }
  if (status != cudaErrorInsufficientDriver) check(status);
  cudaDriverGetVersion(&driver);  // 0 where there is no driver
  if (driver == 0) {
    throw std::runtime_error("no NVIDIA driver: libcuda.so.1 cannot be loaded; GPU arrays need driver 580 or newer");
  }
  throw std::runtime_error("the NVIDIA driver is too old: it serves CUDA " + std::to_string(driver / 1000) + "." +
                           std::to_string(driver % 1000 / 10) + ", this module needs " +
                           std::to_string(CUDART_VERSION / 1000) + ".0 (driver 580 or newer)");
}

}  // namespace fastconv::cuda
