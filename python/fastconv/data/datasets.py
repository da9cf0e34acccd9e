"""MNIST and Fashion-MNIST: four IDX files each, found locally or downloaded.

Whatever the source, the SHA-256 of the decompressed bytes is checked (the gzip wrapper varies).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import sources
from .idx import read_idx

Arrays: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]
Split: TypeAlias = tuple[Arrays, Arrays]


@dataclass(frozen=True)
class IdxFile:
    """One original: its name without .gz, its array's shape, the SHA-256 of the plain file."""

    name: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """Four files in the order x_train, y_train, x_test, y_test, and where to get them."""

    folder: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    mirrors: tuple[str, ...]


MNIST = Dataset(
    folder="mnist",
    files=(
        IdxFile(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)

FASHION_MNIST = Dataset(
    folder="fashion-mnist",
    files=(
        IdxFile(
            "train-images-idx3-ubyte",
            (60000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
)


def mnist() -> Split:
    """MNIST: 60,000 handwritten digits to train on, 10,000 to test on.

    Returns ((x_train, y_train), (x_test, y_test)): x uint8 (N, 1, 28, 28), y int64 (N,).
    Read from `$FASTCONV_DATA/mnist` or the user's cache, else downloaded (11 MB) into the cache.
    Raises OSError for a file that is missing or cannot be downloaded, ValueError for a damaged
    one; both name it. By Yann LeCun, Corinna Cortes and Christopher Burges, CC BY-SA 3.0.
    """
    return load(MNIST)


def fashion_mnist() -> Split:
    """Fashion-MNIST: the same form as `mnist`, with ten kinds of clothing instead of digits.

    Read from `$FASTCONV_DATA/fashion-mnist` or the user's cache, else downloaded (30 MB).
    By Han Xiao, Kashif Rasul and Roland Vollgraf (arXiv 1708.07747), MIT licence.
    """
    return load(FASHION_MNIST)


def locate(dataset: Dataset) -> sources.Location:
    """Say where `load` will read the data set from. Nothing is read or downloaded."""
    return sources.locate(dataset.folder, [file.name for file in dataset.files])


def load(dataset: Dataset) -> Split:
    """Read the four files, downloading what is missing if they are found nowhere."""
    location = locate(dataset)
    if location.kind == "download":
        download(dataset, location.folder)
    x_train, y_train, x_test, y_test = (_read(file, location) for file in dataset.files)
    return (
        (x_train[:, np.newaxis], y_train.astype(np.int64)),
        (x_test[:, np.newaxis], y_test.astype(np.int64)),
    )


def download(dataset: Dataset, folder: Path) -> None:
    """Download the files that `folder` lacks; each appears there only when whole and checked."""
    for file in dataset.files:
        if sources.find(folder, file.name) is None:
            _download_file(file, dataset, folder)


def _download_file(file: IdxFile, dataset: Dataset, folder: Path) -> None:
    def accept(part: Path) -> None:
        read_idx(part, file.shape, sha256=file.sha256)
        part.replace(folder / part.name)

    sources.download(f"{file.name}.gz", dataset.mirrors, folder, accept)


def _read(file: IdxFile, location: sources.Location) -> NDArray[np.uint8]:
    with location.reading(file.name) as path:
        return read_idx(path, file.shape, sha256=file.sha256)
