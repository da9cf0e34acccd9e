"""CIFAR-10: six files in its own binary layout, found locally or downloaded as one archive.

    record      1 byte class, then the red, green and blue planes of 32 x 32 bytes, row by row
    file        10,000 records

Specification: Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and
https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np

from . import sources
from .datasets import Arrays, Split
from .files import DataFileError, opened, read_elements

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
FILES = (*TRAIN_FILES, "test_batch.bin")
IMAGES, CHANNELS, SIDE, CLASSES = 10_000, 3, 32, 10  # of a file

ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
)


def cifar10() -> Split:
    """CIFAR-10: 50,000 photographs of ten kinds of things to train on, 10,000 to test on.

    Returns ((x_train, y_train), (x_test, y_test)): x uint8 (N, 3, 32, 32), y int64 (N,).
    Read from `$FASTCONV_DATA/cifar-10-batches-bin` or the user's cache, else downloaded (170 MB)
    into the cache. Raises OSError for a file that is missing or cannot be downloaded, ValueError
    for a damaged one; both name it. By Alex Krizhevsky, Vinod Nair and Geoffrey Hinton.
    """
    location = locate()
    if location.kind == "download":
        sources.download(ARCHIVE, MIRRORS, location.folder, _unpack)
    return _read(TRAIN_FILES, location), _read(FILES[-1:], location)


def locate() -> sources.Location:
    """Say where `cifar10` will read from. Nothing is read or downloaded."""
    return sources.locate(FOLDER, FILES)


def _read(names: tuple[str, ...], location: sources.Location) -> Arrays:
    x = np.empty((len(names), IMAGES, CHANNELS, SIDE, SIDE), np.uint8)
    y = np.empty((len(names), IMAGES), np.int64)
    for i, name in enumerate(names):
        with location.reading(name) as path:
            with opened(path) as stream:
                records = read_elements(stream, path, (IMAGES, 1 + CHANNELS * SIDE * SIDE))
            labels = records[:, 0]
            if labels.max() >= CLASSES:
                record = int(labels.argmax())
                raise DataFileError(path, f"record {record} has class {labels[record]}, above 9")
            y[i] = labels
            x[i] = records[:, 1:].reshape(x[i].shape)
    return x.reshape(-1, CHANNELS, SIDE, SIDE), y.reshape(-1)


def _unpack(archive: Path) -> None:
    """Check the archive and put its six files into the folder above, each whole or not at all."""
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != ARCHIVE_SHA256:
        raise DataFileError(
            archive, f"not the original: SHA-256 {digest}, expected {ARCHIVE_SHA256}"
        )
    try:
        with tarfile.open(archive, "r:gz") as members:
            for name in FILES:
                # Only the content is taken: no path, link or mode of the archive reaches the disk.
                content = members.extractfile(f"{FOLDER}/{name}")
                if content is None:
                    raise DataFileError(archive, f"{name} in it is no file")
                part = archive.with_name(name)
                part.write_bytes(content.read())
                part.replace(archive.parents[1] / name)
    except (EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise DataFileError(archive, f"damaged archive ({error})") from None
