"""IDX files: what they hold is read, and every fault of one is named."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastconv.data.idx import read_idx

SHAPE = (7, 5, 3)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The IDX file of a uint8 array."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def pixels(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, SHAPE, np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_round_trip(tmp_path: Path, pixels: NDArray[np.uint8], pack: type[bytes]) -> None:
    path = tmp_path / "images"
    content = idx_bytes(pixels)
    path.write_bytes(pack(content))
    read = read_idx(path, SHAPE, sha256=hashlib.sha256(content).hexdigest())
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == np.uint8
    assert read.flags.writeable


GOOD = idx_bytes(np.arange(105, dtype=np.uint8).reshape(SHAPE))
ZIPPED = gzip.compress(GOOD)
DAMAGE = {
    "empty": (b"", "not an IDX file: starts with nothing"),
    "not IDX": (b"<html>" + GOOD, "not an IDX file: starts with 3c 68 74 6d"),
    "float32": (b"\0\0\x0d" + GOOD[3:], "element type 0x0d, expected 0x08"),
    "two axes": (b"\0\0\x08\x02" + GOOD[4:], "2 axes, expected 3"),
    "header cut": (GOOD[:9], "truncated within the header"),
    "other shape": (
        GOOD[:7] + b"\x08" + GOOD[8:],
        r"array of shape \(8, 5, 3\), expected \(7, 5, 3\)",
    ),
    "cut": (GOOD[:-1], "truncated: 104 of the array's 105 bytes"),
    "left over": (GOOD + b"\0", "bytes left over after the 105 of the array"),
    "other bytes": (GOOD[:-1] + b"\0", "not the original: SHA-256 .{64}, expected .{64}"),
    "gzip cut in data": (ZIPPED[:40], "damaged gzip file"),
    "gzip cut in CRC": (ZIPPED[:-2], "damaged gzip file"),
    "gzip with wrong CRC": (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "damaged gzip file .CRC"),
    "gzip with garbage": (ZIPPED + b"garbage", "damaged gzip file"),
    "gzip, left over": (gzip.compress(GOOD + b"\0"), "bytes left over"),
}


@pytest.mark.parametrize(("content", "problem"), DAMAGE.values(), ids=DAMAGE.keys())
def test_idx_names_the_file_and_its_damage(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "t10k-images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"t10k-images: {problem}") as caught:
        read_idx(path, SHAPE, sha256=hashlib.sha256(GOOD).hexdigest())
    assert "\n" not in str(caught.value)
