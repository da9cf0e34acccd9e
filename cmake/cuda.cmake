# Finds nvcc as FASTCONV_CUDA says and enables the language, or leaves FASTCONV_CUDA_FOUND off.
#   AUTO  build the module if nvcc works and a GPU is visible; otherwise say why not, in one line
#   ON    build it, or fail
#   pypi  as ON, with the nvcc of the wheels that pyproject.toml adds to the build environment
#   OFF   leave it out
set(FASTCONV_CUDA AUTO CACHE STRING "Build the CUDA module: AUTO, ON, OFF or pypi")
set_property(CACHE FASTCONV_CUDA PROPERTY STRINGS AUTO ON OFF pypi)
set(least_nvcc 13.0)

# CUDA 13's own architectures, and PTX of the oldest with tensor cores of today's kind for all that come later.
set(FASTCONV_CUDA_TARGETS 75-real 80-real 90a-real 100-real 120-real 80-virtual CACHE STRING "GPU architectures")

if(FASTCONV_CUDA STREQUAL "pypi")
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c "import nvidia.cu13 as cuda; print(cuda.__path__[0])"
    OUTPUT_VARIABLE cuda_root OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(CMAKE_CUDA_COMPILER "${cuda_root}/bin/nvcc")
  set(CUDAToolkit_ROOT "${cuda_root}")
  set(CMAKE_CUDA_FLAGS_INIT "-L${cuda_root}/lib")  # nvcc looks in lib64, which the wheels do not have
endif()

set(why_not "")
if(FASTCONV_CUDA STREQUAL "OFF")
  set(why_not "FASTCONV_CUDA=OFF")
elseif(FASTCONV_CUDA STREQUAL "AUTO" AND NOT EXISTS /dev/nvidia0)
  set(why_not "no GPU is visible (/dev/nvidia0)")
else()
  set(CMAKE_CUDA_ARCHITECTURES ${FASTCONV_CUDA_TARGETS})
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # no libcudart is needed where the module runs
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(why_not "nvcc was not found, or cannot compile")
  else()
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know how to ask nvcc for it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    endif()
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS least_nvcc)
      set(why_not "nvcc is ${CMAKE_CUDA_COMPILER_VERSION}, and ${least_nvcc} is needed")
    endif()
  endif()
endif()

if(NOT why_not)
  set(FASTCONV_CUDA_FOUND ON)
  message(STATUS "CUDA module: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${FASTCONV_CUDA_TARGETS}")
elseif(FASTCONV_CUDA MATCHES "^(AUTO|OFF)$")
  message(STATUS "CUDA module: not built, ${why_not}; -DFASTCONV_CUDA=ON (or the environment's FASTCONV_CUDA=ON) forces it")
else()
  message(FATAL_ERROR "FASTCONV_CUDA=${FASTCONV_CUDA}, but ${why_not}")
endif()
