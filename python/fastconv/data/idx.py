"""The IDX format of MNIST and its kin: magic number, sizes, then the elements in C order.

    byte 0, 1   zero
    byte 2      element type, 0x08 = unsigned byte
    byte 3      rank
    then        one big-endian uint32 per axis, then the elements

Specification: "The IDX file format", http://yann.lecun.com/exdb/mnist/ (at web.archive.org).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import DataFileError, opened, read_elements

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, shape: Sequence[int], *, sha256: str | None = None) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or gzipped (told by its content, not its name).

    `shape` is what the file must hold, so a damaged header cannot ask for absurd amounts of
    memory. `sha256` is the digest of the whole *decompressed* file, in hexadecimal.
    Raises OSError if the file cannot be read, DataFileError if it holds anything else.
    """
    with opened(path) as stream:
        header = _read_header(stream, path, tuple(shape))
        elements = read_elements(stream, path, shape)
    if sha256 is not None:
        _check_digest(path, header, elements, sha256)
    return elements


def _read_header(stream: BufferedIOBase, path: Path, shape: tuple[int, ...]) -> bytes:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataFileError(path, f"not an IDX file: starts with {magic.hex(' ') or 'nothing'}")
    _, element_type, rank = struct.unpack(">HBB", magic)
    if element_type != UNSIGNED_BYTE:
        raise DataFileError(
            path, f"element type 0x{element_type:02x}, expected 0x08 (unsigned byte)"
        )
    if rank != len(shape):
        raise DataFileError(path, f"{rank} axes, expected {len(shape)}")
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataFileError(path, "truncated within the header")
    found = struct.unpack(f">{rank}I", sizes)
    if found != shape:
        raise DataFileError(path, f"array of shape {found}, expected {shape}")
    return magic + sizes


def _check_digest(path: Path, header: bytes, elements: NDArray[np.uint8], expected: str) -> None:
    digest = hashlib.sha256(header)
    digest.update(elements.data)
    if digest.hexdigest() != expected:
        raise DataFileError(
            path, f"not the original: SHA-256 {digest.hexdigest()}, expected {expected}"
        )
