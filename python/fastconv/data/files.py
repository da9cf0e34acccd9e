"""Data files, plain or gzipped, of which exactly the bytes that are expected are read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GZIP_MAGIC = b"\x1f\x8b"


class DataFileError(ValueError):
    """A data file whose content is not what it should be: `path` and the `problem` with it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """The content of a file, unzipped if it is gzipped (told by its content, not its name).

    Raises OSError if the file cannot be read, and DataFileError for damage in the gzip format.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if zipped else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(path, f"damaged gzip file ({error})") from None


def read_elements(stream: BufferedIOBase, path: Path, shape: Sequence[int]) -> NDArray[np.uint8]:
    """The rest of a stream, which must hold an array of `shape` and nothing more."""
    elements = np.empty(shape, np.uint8)
    found = stream.readinto(elements.reshape(-1).data)
    if found < elements.size:
        raise DataFileError(path, f"truncated: {found} of the array's {elements.size} bytes")
    if stream.read(1):  # for gzip this also reads and checks the CRC at the end
        raise DataFileError(path, f"bytes left over after the {elements.size} of the array")
    return elements
