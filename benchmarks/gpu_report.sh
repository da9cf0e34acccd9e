#!/usr/bin/env bash
# Everything that needs a GPU, for a machine with nvcc 13, g++, cmake, ninja and a python3 that has CuPy; PyTorch is
# compared with if it is there. With WHEELS=folder it needs no package index: `pip download -d folder` scikit-build-core,
# pybind11, scipy-openblas32, ml_dtypes and what the extra `test` asks for.
# usage: benchmarks/gpu_report.sh [FOLDER]   writes report.txt, layers.json, wrappers-device.txt and training.json to
# FOLDER, by default benchmarks/results/gpu-DATE. FASTCONV_DATA=folder has mnist/ for the run to 99 %; TARGETS=80-real
# builds for that and not for the device that is there.
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
  FASTCONV_CUDA=ON "${pip[@]}" ".[test]" ml_dtypes pybind11 -C build-dir="$work/build" \
    -C cmake.define.FASTCONV_CUDA_TARGETS="${TARGETS:-native}" -C cmake.define.FASTCONV_DEVICE_TESTS=ON
  "$work/venv/bin/python" -m fastconv info
}

# The emulated device, with the module for the Python tests.
emulator() {
  export PATH="$work/venv/bin:$PATH"
  cmake --preset emulator -B "$work/emulator" -DPython_EXECUTABLE="$work/venv/bin/python" >/dev/null
  cmake --build "$work/emulator" --parallel --target emulator_wrappers emulator_wrappers_90a _cudaemu
}

# Each instruction's result on the device and on the emulator, bit for bit.
wrappers() {
  "$work/build/device_wrappers" >"$out/wrappers-device.txt"
  "$work/emulator/tests/emulator/emulator_wrappers" >"$work/wrappers-emulator.txt"
  if [ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)" = 9.0 ]; then
    "$work/build/device_wrappers_90a" >>"$out/wrappers-device.txt"
    "$work/emulator/tests/emulator/emulator_wrappers_90a" >>"$work/wrappers-emulator.txt"
  fi
  diff "$out/wrappers-device.txt" "$work/wrappers-emulator.txt" && echo "all bits the same"
}

tests() {
  FASTCONV_EMULATOR_BUILD="$work/emulator" FASTCONV_TEST_BACKENDS="$1" "$work/venv/bin/python" -m pytest -q -k "$1" -p no:cacheprovider \
    tests/test_backends.py tests/test_tensor_cores.py tests/test_wgmma.py tests/test_gpu_training.py
}

sanitizer() {
  FASTCONV_TEST_BACKENDS=cuda compute-sanitizer --error-exitcode 1 --target-processes all \
    "$work/venv/bin/python" -m pytest -q -p no:cacheprovider \
    -k "cuda and (strides or all_at_once or depthwise_all or chunks or dense or repeat)" \
    tests/test_backends.py tests/test_tensor_cores.py tests/test_wgmma.py
}

# To 99 % where the whole of MNIST is at hand: FASTCONV_DATA names the folder that has it.
train() {
  local data=mnist_sample
  if [ -d "${FASTCONV_DATA:-}/mnist" ]; then data=mnist; fi
  "$work/venv/bin/fastconv" train --device cuda --data "$data" --epochs 5 --out "$work/run"
  cp "$work/run/metrics.json" "$out/training.json"
}

export -f machine build emulator wrappers tests sanitizer train
export out
step "machine" 20 machine
step "build" 200 build
step "emulator" 150 emulator
step "wrappers, device and emulator" 20 wrappers
step "tests on the device" 120 tests cuda
step "layers and pools" 130 "$work/venv/bin/python" benchmarks/gpu_layers.py "$out/layers.json" 100
step "MNIST" 60 train
step "compute-sanitizer" 90 sanitizer
step "tests on the emulator" 120 tests emu
