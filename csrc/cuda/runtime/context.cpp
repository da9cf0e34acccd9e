#include "context.hpp"

#include <stdexcept>

namespace fastconv::cuda {
namespace {

thread_local const Context* current = nullptr;

}  // namespace

ContextScope::ContextScope(const Context& context) : before_(current) { current = &context; }
ContextScope::~ContextScope() { current = before_; }

const Context& context() {
  if (current == nullptr) throw std::logic_error("a CUDA op was called outside a ContextScope");
  return *current;
}

}  // namespace fastconv::cuda
