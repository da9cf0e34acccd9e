#!/usr/bin/env bash
# usage: benchmarks/run_all.sh FOLDER [options of fastconv bench, such as --python-for torch=PYTHON --rounds 7]
# Every benchmark into FOLDER, a JSON file each, then its tables and pictures and the tables of README.md and
# docs/benchmarks.md. About an hour on two quiet cores. Start it again after an interruption: what is complete stays.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
options=("$@")
mkdir -p "$folder"

# name of the file, then the suite and its options
run() {
  local file=$folder/$1.json
  shift
  if ! grep -qs '"complete": true' "$file"; then
    fastconv bench "$@" "${options[@]}" --json "$file"
  fi
}

layers=(--peers numpy torch torch:channels_last onnxruntime)  # JAX compiles every layer anew: an hour more
products=(--peers numpy torch onnxruntime jax)

run gemm gemm "${products[@]}"
run gemm-1 gemm "${products[@]}" --threads 1
FASTCONV_ISA=avx2 run gemm-avx2 gemm "${products[@]}" --threads 1
run conv-nchw conv --pass all "${layers[@]}"
run conv-nhwc conv --pass all --layout NHWC --peers numpy torch
run conv-nchw-1 conv "${layers[@]}" --threads 1
run pool-nchw pool --pass all "${layers[@]}" jax
run pool-nhwc pool --pass all --layout NHWC --peers numpy torch jax
run train train --peers torch torch:channels_last keras numpy --rounds 5
run start start "${layers[@]}" jax --rounds 9

python benchmarks/tables.py "$folder"
python benchmarks/pictures.py "$folder"
