// What the programs that compare a device with the emulator share: inputs, and results printed word by word.
#pragma once

#include <cstdio>
#include <exception>
#include <functional>
#include <vector>

#include "cuda/runtime/launch.hpp"

namespace fastconv::cuda {

using Words = std::vector<unsigned>;

struct Wrapper {
  const char* name;
  std::size_t out_words;
  std::function<void(const unsigned* in, unsigned* out)> run;  // pointers of the device
};

inline Words random_words(std::size_t count) {
  Words words(count);
  uint32_t random = 1;
  for (unsigned& word : words) {
    random = random * 1664525u + 1013904223u;
    word = random ^ random >> 16;
  }
  return words;
}

inline Words result_of(const Wrapper& wrapper, const Words& in) {
  Words out(wrapper.out_words);
#ifdef __CUDACC__
  const std::size_t in_bytes = in.size() * sizeof(unsigned), out_bytes = out.size() * sizeof(unsigned);
  unsigned* memory = nullptr;
  check(cudaMalloc(&memory, in_bytes + out_bytes));
  check(cudaMemcpy(memory, in.data(), in_bytes, cudaMemcpyHostToDevice));
  check(cudaMemset(memory + in.size(), 0, out_bytes));
  wrapper.run(memory, memory + in.size());
  check(cudaMemcpy(out.data(), memory + in.size(), out_bytes, cudaMemcpyDeviceToHost));
  check(cudaFree(memory));
#else
  wrapper.run(in.data(), out.data());
#endif
  return out;
}

// Prints each wrapper's results, `columns` words a line; 1 if something failed.
inline int print_all(const std::vector<Wrapper>& wrappers, const Words& in, std::size_t columns) {
  try {
    const Context context;
    const ContextScope scope(context);
    for (const Wrapper& wrapper : wrappers) {
      std::printf("%s", wrapper.name);
      const Words out = result_of(wrapper, in);
      for (std::size_t i = 0; i < out.size(); ++i) std::printf(i % columns == 0 ? "\n%08x" : " %08x", out[i]);
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace fastconv::cuda
