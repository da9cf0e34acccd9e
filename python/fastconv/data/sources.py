"""Where data sets come from: `$FASTCONV_DATA/<folder>`, the user's cache, or a download into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .._backend.extras import require
from .files import DataFileError
from .progress import download_bar


@dataclass(frozen=True)
class Location:
    """Where a data set is read from: `kind` is "FASTCONV_DATA", "cache" or "download"."""

    kind: str
    folder: Path

    def __str__(self) -> str:
        if self.kind == "download":
            return f"to be downloaded to {self.folder}"
        return f"{'$FASTCONV_DATA' if self.kind == 'FASTCONV_DATA' else 'cache'}, {self.folder}"

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """The path of a file here; its being missing or damaged is an error that says the mend."""
        path = find(self.folder, name)
        if path is None:
            raise FileNotFoundError(
                f"{self.folder / name} is missing (with or without .gz): add it, or unset "
                "FASTCONV_DATA to download the data set"
            )
        try:
            yield path
        except DataFileError as error:
            mend = (
                "replace it by the original, or unset FASTCONV_DATA to download it"
                if self.kind == "FASTCONV_DATA"
                else "delete it, and it is downloaded again"
            )
            raise DataFileError(path, f"{error.problem}; {mend}") from None


def cache_folder() -> Path:
    """The folder that downloads are kept in, by the custom of the operating system."""
    return Path(require("pooch", "train").os_cache("fastconv"))


def locate(folder: str, names: Sequence[str]) -> Location:
    """Say where the files of a data set will be read from. Nothing is read or downloaded."""
    root = os.environ.get("FASTCONV_DATA")
    if root:
        if not Path(root).is_dir():
            raise NotADirectoryError(
                f"FASTCONV_DATA={root} is not a folder: create it, or unset the variable"
            )
        if (Path(root) / folder).is_dir():
            return Location("FASTCONV_DATA", Path(root) / folder)
    cached = cache_folder() / folder
    return Location("cache" if all(find(cached, name) for name in names) else "download", cached)


def find(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, plain or gzipped, if there is one."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def download(
    name: str, mirrors: Sequence[str], folder: Path, accept: Callable[[Path], None]
) -> None:
    """Fetch the file `name` from the first mirror that has it.

    `accept` is given the file, in a scratch folder inside `folder`, and moves what it finds good
    to its place; a DataFileError of its sends us to the next mirror. OSError when none is left.
    """
    pooch = require("pooch", "train")
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in mirrors:
        # Inside `folder`, so that a rename stays on one file system and is atomic.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            part = Path(scratch) / name
            try:
                with download_bar(name) as bar:
                    fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)
                    fetch(mirror + name, str(part), None)
                accept(part)
                return
            except (OSError, DataFileError) as error:
                failures.append(f"{mirror} ({_reason(error)})")
    raise OSError(
        f"{name} could not be downloaded from {', '.join(failures)}; put its data set into a "
        f"folder {folder.name} and set FASTCONV_DATA to the folder above that"
    )


def _reason(error: OSError | DataFileError) -> str:
    if isinstance(error, DataFileError):
        return error.problem
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    return error.strerror or type(error).__name__
