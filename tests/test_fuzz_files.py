"""Damaged files: each is read right or refused with ValueError; none crashes, hangs or executes.

A mutation cuts a valid file, flips bits, overwrites a number with an absurd one, or appends bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastconv import data, nn
from fastconv.commands import predict
from fastconv.data import cifar
from fastconv.data.idx import read_idx
from fastconv.data.image import read_digit
from fastconv.data.sources import Location

ABSURD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
SMALL_MEMORY = 4 << 20  # bytes, beside some multiples of the file's own size


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` after one to three mutations."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["cut", "flip", "number", "append", "remove"]))
        if kind == "cut":
            del content[place:]
        elif kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            order = draw(st.sampled_from("<>"))
            size = draw(st.sampled_from("BHIQ"))
            number = draw(st.sampled_from(ABSURD)) & ((1 << 8 * struct.calcsize(size)) - 1)
            packed = struct.pack(order + size, number)
            content[place : place + len(packed)] = packed
        elif kind == "append":
            content += draw(st.binary(min_size=1, max_size=40))
        else:
            del content[place : place + draw(st.integers(1, 9))]
    return bytes(content)


def fuzz(valid: bytes) -> Callable[[Any], Any]:
    """Call the test with many damaged forms of a file, the same ones in every run."""

    def decorate(test: Any) -> Any:
        many = settings(
            max_examples=300,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        return many(given(content=damaged(valid))(test))

    return decorate


def one_line(error: ValueError) -> None:
    """Fail unless the error says something, in one line."""
    assert len(str(error).splitlines()) == 1


def bounded(read: Callable[[], Any], size: int) -> Any:
    """What `read` returns, or None for a ValueError in one line; either takes little memory."""
    tracemalloc.start()
    try:
        return read()
    except ValueError as error:
        return one_line(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * size + SMALL_MEMORY, "memory was taken before the file's length was seen"


IDX_SHAPE = (6, 5, 3)
IDX = struct.pack(">HBB3I", 0, 8, 3, *IDX_SHAPE) + bytes(range(90))


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@fuzz(IDX)
def test_idx(tmp_path: Path, zipped: bool, content: bytes) -> None:
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if zipped else content)
    read = bounded(lambda: read_idx(path, IDX_SHAPE), len(content))
    if read is not None:
        assert content[:16] == IDX[:16]
        assert read.tobytes() == content[16:]


@fuzz(gzip.compress(IDX))
def test_damaged_gzip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    read = bounded(lambda: read_idx(path, IDX_SHAPE), len(content))
    assert read is None or read.tobytes() == IDX[16:], "gzip's own checksum lets no change through"


RECORDS = np.arange(3 * 3073, dtype=np.uint8).reshape(3, 3073)
RECORDS[:, 0] %= 10


@fuzz(RECORDS.tobytes())
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(cifar, "IMAGES", 3)
    (tmp_path / "test_batch.bin").write_bytes(content)
    here = Location("FASTCONV_DATA", tmp_path)
    read = bounded(lambda: cifar._read(("test_batch.bin",), here), len(content))
    if read is not None:
        x, y = read
        records = np.frombuffer(content, np.uint8).reshape(3, 3073)
        np.testing.assert_array_equal(x.reshape(3, 3072), records[:, 1:])
        np.testing.assert_array_equal(y, records[:, 0])
        assert y.max() < 10


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3, rng=1), nn.BatchNorm2d(2), name="mlp")


def load(net: nn.Sequential, path: Path) -> bool:
    """Whether the file was loaded, rather than an exception raised."""
    net.load(path)
    return True


def saved() -> bytes:
    from safetensors.numpy import save

    tensors = {state.name: state.data for state in model().state()}
    return bytes(save(tensors, {"model": "mlp"}))


SAVED = saved()


@fuzz(SAVED)
def test_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    net = model()
    before = [state.data.copy() for state in net.state()]
    loaded = bounded(lambda: load(net, path), len(content))
    if loaded is None:
        for state, kept in zip(net.state(), before, strict=True):
            np.testing.assert_array_equal(state.data, kept)
    bounded(lambda: predict.load_model(path), 4 << 20)


def header(tensors: dict[str, Any], size: int = 0) -> bytes:
    """A safetensors file of any header, followed by `size` bytes."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


TENSOR_NAMES = [state.name for state in model().state()]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(["F32", "F64", "BF16", "F8_E4M3", "BOOL", "I64", "F4", "X", "", 3, None]),
    shape=st.lists(st.sampled_from([*ABSURD, 2, 3, -1]), max_size=5),
    offsets=st.lists(st.sampled_from([*ABSURD, 4, 8, 72, -4]), min_size=1, max_size=3),
    metadata=st.sampled_from([{}, {"model": "mlp"}, {"model": "../../x"}, {"model": 5}, [], "x"]),
)
def test_headers_of_safetensors(
    tmp_path_factory: pytest.TempPathFactory, dtype: Any, shape: Any, offsets: Any, metadata: Any
) -> None:
    tensors = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets} for name in TENSOR_NAMES
    }
    path = tmp_path_factory.getbasetemp() / "headers.safetensors"
    path.write_bytes(header({"__metadata__": metadata, **tensors}, size=72))
    net = model()
    assert bounded(lambda: load(net, path), 1 << 20) is None
    assert bounded(lambda: predict.load_model(path), 4 << 20) is None


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@fuzz(npy(np.linspace(0, 1, 56).reshape(8, 7)))
def test_npy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "digit.npy"
    path.write_bytes(content)
    read = bounded(lambda: read_digit(path), len(content))
    assert read is None or (read.shape, read.dtype) == ((1, 28, 28), np.dtype(np.uint8))


CLAIMS = {
    "absurd shape": npy(np.zeros((2, 3))).replace(b"(2, 3), }          ", b"(99999999999, 3), }"),
    "negative shape": npy(np.zeros((2, 3))).replace(b"(2, 3), } ", b"(2, -3), }"),
    "header of 600 MB": npy(np.zeros((2, 3))).replace(b"NUMPY\x01", b"NUMPY\x03"),
    "objects": npy(np.zeros((2, 3))).replace(b"'<f8'", b"'|O'"),
    "a zip archive": b"PK\x03\x04" + bytes(50),
    "an open bracket": npy(np.zeros((2, 3))).replace(b"{'descr'", b"(('descr'"),
    "no such type": npy(np.zeros((2, 3))).replace(b"'<f8'", b"'<f9'"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_npy_headers(tmp_path: Path, claim: str) -> None:
    path = tmp_path / "digit.npy"
    path.write_bytes(CLAIMS[claim])
    assert bounded(lambda: read_digit(path), 1 << 10) is None


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F4", "BOOL", "I64"])
def test_a_dtype_that_no_model_has(tmp_path: Path, dtype: str) -> None:
    bits = {"BF16": 16, "F16": 16, "F4": 4, "I64": 64}.get(dtype, 8)
    tensor = {"dtype": dtype, "shape": [576 // bits], "data_offsets": [0, 72]}
    path = tmp_path / "model.safetensors"
    path.write_bytes(header({"0.weight": tensor}, size=72))
    with pytest.raises(
        ValueError, match=r"does not fit .*; 0\.weight is \w+ \(\d+,\), the model's"
    ):
        model().load(path)


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "executed")


def test_no_pickle_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap, mark = Trap(tmp_path / "mark"), tmp_path / "mark"
    content = pickle.dumps(trap)
    objects = io.BytesIO()
    np.save(objects, np.array([trap], object), allow_pickle=True)
    monkeypatch.setattr(cifar, "IMAGES", 3)
    for name, damage in {
        "a.npy": objects.getvalue(),
        "b.npy": content,
        "images": content,
        "test_batch.bin": content,
        "model.safetensors": content,
    }.items():
        (tmp_path / name).write_bytes(damage)
    here = Location("FASTCONV_DATA", tmp_path)
    readers: list[Callable[[], Any]] = [
        lambda: read_digit(tmp_path / "a.npy"),
        lambda: read_digit(tmp_path / "b.npy"),
        lambda: read_idx(tmp_path / "images", IDX_SHAPE),
        lambda: cifar._read(("test_batch.bin",), here),
        lambda: model().load(tmp_path / "model.safetensors"),
        lambda: predict.load_model(tmp_path / "model.safetensors"),
    ]
    for read in readers:
        with pytest.raises(ValueError, match=str(tmp_path)):
            read()
    assert not mark.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert mark.exists(), "the trap works"


def test_the_sample_refuses_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv.data import sample

    images = np.array([Trap(tmp_path / "mark")], object)
    np.savez(tmp_path / "sample.npz", images=images, labels=images, allow_pickle=True)
    monkeypatch.setattr(sample, "SAMPLE", tmp_path / "sample.npz")
    with pytest.raises(ValueError, match=r"sample.npz: damaged"):
        data.mnist_sample()
    assert not (tmp_path / "mark").exists()
