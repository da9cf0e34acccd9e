#include "backend.hpp"
#include "check.hpp"

int main(int argc, char** argv) {
  const fastconv::test::Scratch scratch;
  return fastconv::test::run_tests(argc, argv);
}
