"""Pictures of a training run and of what the network learned, as PNG files.

Every function takes the path to write to. matplotlib (`pip install "fastconv[train]"`) is used
through figures of its own, so no global state of pyplot is touched and no display is needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._backend.extras import require
from .nn.layer import evaluating

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .nn import Sequential

Path = str | os.PathLike[str]
Row = Mapping[str, float]

TRAIN, TEST = "#7f7f7f", "#1f77b4"
MODELS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3")
DPI = 150
STRIP = 16  # feature maps side by side
PER_ROW, CAPTION = 8, 1.3  # misclassified images; height with caption over height without
GAP = 0.06  # between them, as a part of their width


@dataclass(frozen=True)
class Run:
    """One trained model of a comparison: its name, parameter count and rows, one an epoch."""

    name: str
    parameters: int
    rows: Sequence[Row]


def learning_curve(rows: Sequence[Row], path: Path, title: str = "Learning curve") -> None:
    """Loss and accuracy over the epochs, in training and on the test set.

    `rows` has a mapping per epoch with keys loss, accuracy and, if there was a test set, val_loss
    and val_accuracy (accuracies in [0, 1]), as `History.rows()` gives it.
    """
    epochs = range(1, len(rows) + 1)
    with _figure(path, (10, 4.2)) as figure:
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        for axes, key, label, scale in (
            (left, "loss", "cross-entropy loss", 1),
            (right, "accuracy", "accuracy (%)", 100),
        ):
            for name, colour, which in (("training", TRAIN, key), ("test", TEST, f"val_{key}")):
                if rows and which in rows[0]:
                    values = [scale * row[which] for row in rows]
                    axes.plot(epochs, values, "o-", color=colour, markersize=4, label=name)
            _epoch_axis(axes, len(rows), label)
            axes.legend()
        left.set_yscale("log")


def filters(weight: ArrayLike, path: Path, title: str = "First-layer filters") -> None:
    """The filters (K, C, R, S) of a first layer, C = 1 or 3, one tile each.

    One channel is drawn in red (positive) and blue (negative) on one scale for all filters; three
    channels as colours, zero in mid-gray.
    """
    w = np.asarray(weight, np.float64)
    if w.ndim != 4 or w.shape[1] not in (1, 3):
        raise ValueError(f"weight has shape {w.shape}, expected (K, 1, R, S) or (K, 3, R, S)")
    limit = float(np.abs(w).max(initial=0)) or 1.0
    k, c, r, s = w.shape
    columns = _columns(k)
    height = 8 * math.ceil(k / columns) * r / (columns * s)
    with _figure(path, (9, height + 0.5)) as figure:
        axes = figure.add_subplot()
        axes.set_title(f"{title}: {k} of {r} x {s}")
        axes.set_axis_off()
        if c == 3:
            axes.imshow(_mosaic(np.moveaxis(w / limit, 1, -1) / 2 + 0.5, columns))
            return
        image = axes.imshow(_mosaic(w[:, 0], columns), cmap="coolwarm", vmin=-limit, vmax=limit)
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, label="weight")


def feature_maps(
    model: Sequential, image: ArrayLike, path: Path, title: str = "Feature maps"
) -> None:
    """What each convolution and pooling layer makes of one image, float32 (C, H, W).

    Each strip has one tile a channel, on one brightness scale, black at zero or below.
    """
    x = np.asarray(image)
    if x.ndim != 3:
        raise ValueError(f"image has shape {x.shape}, expected (C, H, W) without a batch axis")
    stages = list(_spatial_outputs(model, x[np.newaxis]))
    heights = [2, *(math.ceil(len(maps) / STRIP) for _, maps in stages)]
    with _figure(path, (10, 0.63 * sum(heights) + 0.4 * len(heights))) as figure:
        figure.suptitle(title)
        panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
            axes.set_anchor("W")
        panels[0].imshow(_shown(x), cmap="gray")
        panels[0].set_title(f"input, {x.shape[1]} x {x.shape[2]}", loc="left", fontsize=10)
        for axes, (name, maps) in zip(panels[1:], stages, strict=True):
            brightest = max(float(maps.max()), np.finfo(np.float32).tiny)
            axes.imshow(_mosaic(maps, STRIP), cmap="inferno", vmin=0, vmax=brightest)
            k, p, q = maps.shape
            axes.set_title(f"{name}: {k} maps of {p} x {q}", loc="left", fontsize=10)


def confusion_matrix(
    labels: ArrayLike,
    predictions: ArrayLike,
    path: Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "Confusion matrix",
) -> None:
    """Counts of (true class, predicted class), and each class's share of right answers.

    `labels` and `predictions` are integers (N,) from 0; `names` are the classes' (default: their
    numbers). Right answers are in gray, so that the colours show the mistakes alone.
    """
    truth, guess = np.asarray(labels), np.asarray(predictions)
    classes = len(names) if names else int(max(truth.max(initial=0), guess.max(initial=0))) + 1
    names = names or [str(label) for label in range(classes)]
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, guess), 1)
    right, asked = np.diagonal(counts), counts.sum(axis=1)
    shares = [f"{r / n:.1%}" if n else "none" for r, n in zip(right, asked, strict=True)]
    with _figure(path, (9, 7.5)) as figure:
        axes = figure.add_subplot()
        _draw_counts(axes, counts)
        axes.set_xticks(range(classes), names)
        if max(map(len, names)) > 3:
            axes.tick_params("x", rotation=30)
        axes.set_yticks(range(classes), [f"{n}  ({s})" for n, s in zip(names, shares, strict=True)])
        axes.set(xlabel="predicted", ylabel="true class (share recognised)")
        axes.set_title(f"{title}: {right.sum():,} of {len(truth):,} right")


def misclassified(
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    path: Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "Misclassified",
) -> None:
    """The mistakes that the network was surest of, at most 40.

    `images` is (N, C, H, W), C = 1 or 3, `labels` integers (N,), `probabilities` (N, classes).
    Each tile says the true class, the predicted one, and the probability that was given to it.
    """
    x, truth, p = np.asarray(images), np.asarray(labels), np.asarray(probabilities)
    guess, sure = p.argmax(axis=1), p.max(axis=1)
    wrong = np.flatnonzero(guess != truth)
    shown = wrong[np.argsort(-sure[wrong], kind="stable")][:40]
    height, width = x.shape[2:]
    rows = math.ceil(len(shown) / PER_ROW)
    some = f", the {len(shown)} surest shown" if len(shown) < len(wrong) else ""
    with _figure(path, (11, 11 / PER_ROW * CAPTION * rows * height / width + 0.5)) as figure:
        figure.suptitle(f"{title}: {len(wrong):,} of {len(truth):,}{some}")
        if not rows:
            return
        axes = figure.add_subplot()
        axes.set_axis_off()
        for place, i in enumerate(shown):  # in one pair of axes, since forty are slow
            left = (place % PER_ROW + GAP / 2) * width
            bottom = (place // PER_ROW + 1) * CAPTION * height
            axes.imshow(
                _shown(x[i]),
                cmap="gray_r",
                extent=(left, left + (1 - GAP) * width, bottom, bottom - (1 - GAP) * height),
            )
            true_name, guess_name = (names[c] if names else c for c in (truth[i], guess[i]))
            caption = f"{true_name} as {guess_name}\n{sure[i]:.0%}"
            middle, top = left + (1 - GAP) / 2 * width, bottom - (1 - GAP) * height
            axes.text(middle, top, caption, ha="center", va="bottom", fontsize=8)
        axes.set(xlim=(0, PER_ROW * width), ylim=(rows * CAPTION * height, 0))


def comparison(runs: Sequence[Run], path: Path, title: str = "Comparison") -> None:
    """Models trained with the same settings: test error over the epochs, and what each costs.

    Rows need val_accuracy (in [0, 1]) and seconds.
    """
    names = [run.name for run in runs]
    colours = [MODELS[i % len(MODELS)] for i in range(len(runs))]
    with _figure(path, (12, 4.2)) as figure:
        figure.suptitle(title)
        curves, *bars = figure.subplots(1, 4, width_ratios=(2.2, 1, 1, 1))
        for run, colour in zip(runs, colours, strict=True):
            errors = [100 * (1 - row["val_accuracy"]) for row in run.rows]
            epochs = range(1, len(errors) + 1)
            curves.plot(epochs, errors, "o-", color=colour, markersize=4, label=run.name)
        _epoch_axis(curves, max(len(run.rows) for run in runs), "test error (%)")
        curves.set_ylim(bottom=0)
        curves.legend()
        costs = (
            ("test error (%)", "{:.2f}", [100 * (1 - r.rows[-1]["val_accuracy"]) for r in runs]),
            ("parameters", "{:,.0f}", [float(r.parameters) for r in runs]),
            (
                "seconds an epoch",
                "{:.2f}",
                [float(np.mean([e["seconds"] for e in r.rows])) for r in runs],
            ),
        )
        for axes, (label, form, values) in zip(bars, costs, strict=True):
            drawn = axes.bar(names, values, color=colours, width=0.6)
            axes.bar_label(drawn, [form.format(v) for v in values], padding=2, fontsize=9)
            axes.set_title(label, fontsize=10)
            axes.set_yticks([])
            axes.margins(x=0.15, y=0.15)
            axes.spines[["left", "right", "top"]].set_visible(False)
            axes.tick_params("x", labelsize=9)


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of `size` inches, written to `path` at the end of the block."""
    figure: Figure = require("matplotlib.figure", "train").Figure(size, layout="constrained")
    require("matplotlib.backends.backend_agg", "train").FigureCanvasAgg(figure)
    yield figure
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.15)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    """An image (C, H, W) as matplotlib draws it: three channels in colour, another number gray."""
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(axis=0)


def _epoch_axis(axes: Axes, epochs: int, ylabel: str) -> None:
    ticker = require("matplotlib.ticker", "train")
    axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5), ylabel=ylabel)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def _columns(tiles: int) -> int:
    """How many tiles a row, for a mosaic about twice as wide as high; full rows if possible."""
    least = max(1, math.ceil(math.sqrt(2 * tiles)))
    return next((c for c in range(least, 2 * least) if tiles % c == 0), least)


def _mosaic(tiles: NDArray[Any], columns: int) -> NDArray[Any]:
    """Tiles (n, h, w) or (n, h, w, 3) in one array, `columns` a row, blank lines between them."""
    scale = max(1, round(24 / tiles.shape[1]))  # so that the lines are thin beside small tiles too
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    n, h, w, *depth = tiles.shape
    gap, rows = 2, math.ceil(n / columns)
    mosaic = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, *depth), np.nan)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        mosaic[top : top + h, left : left + w] = tile
    return mosaic


def _spatial_outputs(model: Sequential, x: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The name and output (K, P, Q) of each layer whose output still has spatial extent."""
    with evaluating(model):
        for layer in model.layers:
            x = layer.forward(x)
            if x.ndim == 4 and x[0, 0].size > 1:
                yield type(layer).__name__, x[0]


def _draw_counts(axes: Axes, counts: NDArray[np.int64]) -> None:
    """The matrix with its numbers: the diagonal in gray, mistakes in colour."""
    diagonal = np.eye(len(counts), dtype=bool)
    worst = max(1, int(counts[~diagonal].max(initial=0)))
    axes.imshow(np.where(diagonal, np.nan, counts), cmap="OrRd", vmin=0, vmax=worst)
    axes.imshow(np.where(diagonal, 1.0, np.nan), cmap="Greys", vmin=0, vmax=5)
    for i, j in np.ndindex(counts.shape):
        if counts[i, j]:
            dark = i != j and counts[i, j] > 0.6 * worst
            colour = "white" if dark else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)
