"""A progress bar for downloads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._backend.extras import require


class _Bar:
    """What pooch asks of a progress bar: `total`, `update`, `reset` and `close`."""

    def __init__(self, progress: Any, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None)

    @property
    def total(self) -> float | None:
        total: float | None = self._progress.tasks[self._task].total
        return total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)  # 0: the server did not say

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        pass  # the Progress that holds the bar is closed by its context


@contextmanager
def download_bar(description: str) -> Iterator[_Bar | None]:
    """A bar on standard error while the block runs; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    progress = require("rich.progress", "train")
    console = require("rich.console", "train").Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    with progress.Progress(*columns, console=console) as bars:
        yield _Bar(bars, description)
