"""What `fastconv train` shows while it works: a line an epoch, and a live bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._backend.extras import require
from ..nn import Callback
from ..nn.training import Metrics

HEADER = (
    f"{'epoch':>5} {'loss':>14} {'accuracy':>8} {'test loss':>14} {'accuracy':>8} "
    f"{'lr':>8} {'images/s':>8} {'seconds':>7}"
)


def table_row(epoch: int, m: Metrics) -> str:
    """One line, in 80 columns; nine digits of a loss tell any two float32 values apart."""
    return (
        f"{epoch:>5} {m['loss']:>14.9g} {m['accuracy']:>8.2%} "
        f"{m['val_loss']:>14.9g} {m['val_accuracy']:>8.2%} "
        f"{m['lr']:>8.2g} {m['images_per_second']:>8,.0f} {m['seconds']:>7.2f}"
    )


class Table(Callback):
    """Prints the header, then a line after each epoch."""

    def on_epoch_begin(self, epoch: int, steps: int) -> None:
        if epoch == 0:
            print(HEADER, flush=True)

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> None:
        print(table_row(epoch + 1, metrics), flush=True)


class Bar(Callback):
    """Moves a rich progress bar with every batch."""

    def __init__(self, progress: Any, epochs: int) -> None:
        self._progress = progress
        self._epochs = epochs
        self._task = progress.add_task("", status="")

    def on_epoch_begin(self, epoch: int, steps: int) -> None:
        title = f"epoch {epoch + 1}/{self._epochs}"
        self._progress.reset(self._task, total=steps, description=title, status="")

    def on_batch_end(self, epoch: int, step: int, metrics: Metrics) -> None:
        status = (
            f"loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.2%}  "
            f"{metrics['images_per_second']:,.0f} images/s"
        )
        self._progress.update(self._task, completed=step + 1, status=status)


@contextmanager
def reporting(epochs: int) -> Iterator[list[Callback]]:
    """The callbacks that show a training run on standard output."""
    if not sys.stdout.isatty():
        yield [Table()]
        return
    rich = require("rich.progress", "train")
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=20),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[status]}"),
    )
    # It prints what goes to sys.stdout above the bar, and takes the bar away at the end.
    with rich.Progress(*columns, transient=True) as progress:
        yield [Table(), Bar(progress, epochs)]
