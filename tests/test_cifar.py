"""CIFAR-10 in its binary layout: read, checked, downloaded whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastconv import data
from fastconv.data import cifar, sources
from webserver import Handler, serving

IMAGES = 7  # of a file here


@pytest.fixture
def records(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> dict[str, NDArray[np.uint8]]:
    """Small files by name, an empty user cache, and no FASTCONV_DATA."""
    monkeypatch.setattr(cifar, "IMAGES", IMAGES)
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FASTCONV_DATA", raising=False)
    made = {}
    for name in cifar.FILES:
        made[name] = rng.integers(0, 256, (IMAGES, 3073), np.uint8)
        made[name][:, 0] %= 10
    return made


@pytest.fixture
def folder(
    records: dict[str, NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The files in a folder of FASTCONV_DATA."""
    place = tmp_path / "data" / cifar.FOLDER
    place.mkdir(parents=True)
    for name, content in records.items():
        content.tofile(place / name)
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path / "data"))
    return place


def check(records: dict[str, NDArray[np.uint8]]) -> None:
    """`cifar10` returns what the records say, cell by cell."""
    (x, y), (x_test, y_test) = data.cifar10()
    assert (x.shape, x_test.shape) == ((5 * IMAGES, 3, 32, 32), (IMAGES, 3, 32, 32))
    assert [x.dtype, y.dtype, x_test.dtype, y_test.dtype] == ["uint8", "int64"] * 2
    third = records["data_batch_3.bin"]
    assert y[2 * IMAGES + 4] == third[4, 0]
    assert x[2 * IMAGES + 4, 1, 5, 9] == third[4, 1 + 1024 + 5 * 32 + 9]
    np.testing.assert_array_equal(x_test.reshape(IMAGES, -1), records["test_batch.bin"][:, 1:])
    np.testing.assert_array_equal(y_test, records["test_batch.bin"][:, 0])


def test_fastconv_data_is_read_first(
    folder: Path, records: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    assert str(cifar.locate()) == f"$FASTCONV_DATA, {folder}"
    check(records)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], r"data_batch_2.bin: truncated: 21510 of the array's 21511"),
        (lambda content: content + b"\0", "data_batch_2.bin: bytes left over"),
        (lambda content: b"", "data_batch_2.bin: truncated: 0 of"),
        (
            lambda content: content[: 2 * 3073] + b"\x0a" + content[2 * 3073 + 1 :],
            "data_batch_2.bin: record 2 has class 10, above 9; replace it by the original",
        ),
    ],
)
def test_a_damaged_file_is_named(folder: Path, damage: Any, message: str) -> None:
    path = folder / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        data.cifar10()


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch.bin is missing .*: add it, or unset"):
        data.cifar10()


def archive_of(records: dict[str, NDArray[np.uint8]]) -> bytes:
    """An archive as the original is made, with a member beside the six files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in [("readme.html", np.zeros(9, np.uint8)), *records.items()]:
            member = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            member.size = content.size
            archive.addfile(member, io.BytesIO(content.tobytes()))
    return stream.getvalue()


@pytest.fixture
def server(
    records: dict[str, NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[Handler]]:
    """The archive on this machine, behind a mirror that lacks it."""
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "server").mkdir()
    publish(tmp_path, archive_of(records), monkeypatch)
    with serving(tmp_path / "server") as (mirrors, handler):
        monkeypatch.setattr(cifar, "MIRRORS", mirrors)
        yield handler


def publish(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `content` the archive, and its digest the expected one."""
    (tmp_path / "server" / cifar.ARCHIVE).write_bytes(content)
    monkeypatch.setattr(cifar, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())


def test_download_then_cache(
    server: type[Handler], records: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    assert cifar.locate().kind == "download"
    check(records)
    cached = tmp_path / "cache" / cifar.FOLDER
    assert {path.name for path in cached.iterdir()} == set(cifar.FILES)
    assert server.asked == [f"/gone/{cifar.ARCHIVE}", f"/{cifar.ARCHIVE}"]
    check(records)
    assert len(server.asked) == 2, "nothing is downloaded twice"
    (cached / "test_batch.bin").unlink()
    check(records)
    assert len(server.asked) == 4


def test_a_cut_or_other_archive_leaves_nothing(
    server: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache" / cifar.FOLDER
    server.cut.add(cifar.ARCHIVE)
    with pytest.raises(OSError, match=r"could not be downloaded .*\(HTTP 404\).*cifar-10-batches"):
        data.cifar10()
    server.cut.clear()
    monkeypatch.setattr(cifar, "ARCHIVE_SHA256", "0" * 64)
    with pytest.raises(OSError, match=r"not the original: SHA-256 \w{64}, expected 0{64}"):
        data.cifar10()
    assert list(cached.iterdir()) == []


def test_an_archive_writes_nothing_but_the_six_files(
    server: type[Handler],
    records: dict[str, NDArray[np.uint8]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even a wrong one whose digest is expected: a link, a path upwards, a file that is missing."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("../../escaped", "/tmp/escaped", f"{cifar.FOLDER}/../escaped"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo(f"{cifar.FOLDER}/data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    publish(tmp_path, stream.getvalue(), monkeypatch)
    with pytest.raises(OSError, match="damaged archive"):
        data.cifar10()
    publish(tmp_path, b"no archive", monkeypatch)
    with pytest.raises(OSError, match="damaged archive"):
        data.cifar10()
    assert {path.name for path in tmp_path.rglob("*")} <= {
        *("server", "cache", cifar.ARCHIVE, cifar.FOLDER)
    }


@pytest.mark.skipif("FASTCONV_DATA" not in os.environ, reason="FASTCONV_DATA is not set")
def test_the_real_cifar10() -> None:
    if cifar.locate().kind != "FASTCONV_DATA":
        pytest.skip(f"FASTCONV_DATA has no folder {cifar.FOLDER}")
    (x_train, y_train), (x_test, y_test) = data.cifar10()
    assert (x_train.shape, x_test.shape) == ((50000, 3, 32, 32), (10000, 3, 32, 32))
    assert np.bincount(y_train).tolist() == [5000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10
