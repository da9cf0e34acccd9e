"""5,000 MNIST digits inside the package, so that everything runs without a download."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from .datasets import Split
from .files import DataFileError

SAMPLE = Path(__file__).with_name("mnist_sample.npz")
CLASSES = 10
TRAIN_PER_CLASS = 400


def mnist_sample() -> Split:
    """5,000 of MNIST's training digits, 400 a class to train on and 100 a class to test on.

    Returns ((x_train, y_train), (x_test, y_test)): x uint8 (N, 1, 28, 28), y int64 (N,).
    The digits come in the order 0, 1, ... 9, 0, 1, ... so every split is stratified.
    MNIST is by Yann LeCun, Corinna Cortes and Christopher Burges, CC BY-SA 3.0;
    tools/make_mnist_sample.py made the file.
    """
    try:
        with SAMPLE.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(SAMPLE, f"damaged ({error}); install fastconv again") from None
    x, y = images[:, np.newaxis], labels.astype(np.int64)
    train = CLASSES * TRAIN_PER_CLASS
    return (x[:train], y[:train]), (x[train:], y[train:])
