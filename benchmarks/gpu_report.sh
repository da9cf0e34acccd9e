#!/usr/bin/env bash
# Everything that needs a GPU, for a machine with nvcc 13, python3 with NumPy and CuPy, and g++; PyTorch is compared with
# if it is there. Needs no internet if pybind11 and scipy-openblas32 are installed (or lie in the folder WHEELS).
# usage: benchmarks/gpu_report.sh [FOLDER]   writes FOLDER/{report.txt,layers.json}, default benchmarks/results/gpu-DATE
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-benchmarks/results/gpu-$(date +%Y-%m-%d)}")
work=$(mktemp -d)
export work  # the steps below run in shells of their own, under a time limit
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
exec > >(tee "$out/report.txt") 2>&1
deadline=$((SECONDS + 520))  # with a margin to nine minutes

# Runs a step within a share of the time that is left; a step that fails does not stop the others.
step() {
  local title=$1 limit=$2 start=$SECONDS left=$((deadline - SECONDS))
  shift 2
  printf '\n=== %s\n' "$title"
  if [ "$left" -le 5 ]; then printf '=== %s: NO TIME LEFT\n' "$title"; return; fi
  timeout $((limit < left ? limit : left)) bash -euo pipefail -c '"$@"' _ "$@"
  printf '=== %s: exit status %d, %d s\n' "$title" $? $((SECONDS - start))
}

machine() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
  nvcc --version | tail -n 2
  python3 --version
  git log -1 --format='commit %h %ad' --date=short
}

build() {
  python3 -m venv --system-site-packages "$work/venv"
  local pip=("$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  if [ -n "${WHEELS:-}" ]; then pip+=(--no-index --find-links "$WHEELS"); fi
  # The targets of this device alone: the others' turn is in CI.
  FASTCONV_CUDA=ON "${pip[@]}" ".[test]" -C cmake.define.FASTCONV_CUDA_TARGETS=native
  "$work/venv/bin/python" -m fastconv info
}

tests() {
  FASTCONV_TEST_BACKENDS=cuda "$work/venv/bin/python" -m pytest -q -k cuda \
    tests/test_backends.py tests/test_gpu_training.py
}

sanitizer() {
  FASTCONV_TEST_BACKENDS=cuda compute-sanitizer --error-exitcode 1 --target-processes all \
    "$work/venv/bin/python" -m pytest -q -k "cuda and (strides or groups or depthwise or volume or dense)" \
    tests/test_backends.py
}

export -f machine build tests sanitizer
step "machine" 20 machine
step "build" 240 build
step "tests on the device" 150 tests
step "layers against PyTorch" 120 "$work/venv/bin/python" benchmarks/gpu_layers.py "$out/layers.json"
step "MNIST sample, 10 epochs" 60 "$work/venv/bin/fastconv" train --device cuda --out "$work/run"
step "compute-sanitizer" 120 sanitizer
