"""Pictures: each is written, and holds the numbers it was given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fastconv import nn, plots

ROWS = [
    {"loss": 1.5, "accuracy": 0.5, "val_loss": 1.2, "val_accuracy": 0.6, "seconds": 2.0},
    {"loss": 0.4, "accuracy": 0.9, "val_loss": 0.5, "val_accuracy": 0.8, "seconds": 4.0},
]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where to draw; afterwards there is a picture with more than one colour."""
    path = tmp_path / "picture.png"
    yield path
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert len(set(picture.convert("L").tobytes())) > 10


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures = []
    savefig = Figure.savefig

    def remember(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def texts(figure: Figure) -> str:
    """All text of a figure, a line each."""
    return "\n".join(text.get_text() for text in figure.findobj(match=_has_text))  # type: ignore[attr-defined]


def values(axes: Any) -> list[Any]:
    """What the curves of a diagram show."""
    return [np.asarray(line.get_ydata()) for line in axes.lines]


def pixels(axes: Any) -> NDArray[Any]:
    """The image of a diagram, NaN where it shows nothing."""
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def heights(axes: Any) -> list[float]:
    """What the bars of a diagram show."""
    return [bar.get_height() for bar in axes.patches]


def _has_text(artist: object) -> bool:
    return hasattr(artist, "get_text")


def test_learning_curve(path: Path, drawn: list[Figure]) -> None:
    plots.learning_curve(ROWS, path, "two epochs")
    loss, accuracy = drawn[0].axes
    assert [line.get_label() for line in loss.lines] == ["training", "test"]
    np.testing.assert_allclose(values(loss), [[1.5, 0.4], [1.2, 0.5]])
    np.testing.assert_allclose(values(accuracy), [[50, 90], [60, 80]])
    assert "two epochs" in texts(drawn[0])


def test_learning_curve_without_a_test_set(path: Path, drawn: list[Figure]) -> None:
    plots.learning_curve([{"loss": 1.0, "accuracy": 0.5}], path)
    assert [line.get_label() for line in drawn[0].axes[0].lines] == ["training"]


def test_filters_share_one_scale(path: Path, drawn: list[Figure], rng: np.random.Generator) -> None:
    w = rng.normal(size=(6, 1, 2, 3)).astype(np.float32)
    plots.filters(w, path)
    (image,) = drawn[0].axes[0].images
    limit = float(np.abs(w).max())
    assert image.get_clim() == pytest.approx((-limit, limit))
    assert "6 of 2 x 3" in texts(drawn[0])
    shown = np.unique(pixels(drawn[0].axes[0]))
    np.testing.assert_allclose(shown[~np.isnan(shown)], np.unique(w), rtol=1e-6)


def test_filters_of_three_channels_are_colours(path: Path, drawn: list[Figure]) -> None:
    w = np.zeros((4, 3, 5, 2))
    w[0, 1, 0, 0] = -2.0  # the strongest weight: no green at all
    plots.filters(w, path)
    colours = np.asarray(drawn[0].axes[0].images[0].get_array())
    np.testing.assert_allclose(colours[0, 0], [0.5, 0, 0.5])
    np.testing.assert_allclose(colours[-1, -1], [0.5, 0.5, 0.5])


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (4, 9)])
def test_filters_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"weight has shape {shape}, expected (K, 1,")):
        plots.filters(np.zeros(shape), tmp_path / "picture.png")


def test_tiles_are_placed_row_by_row() -> None:
    tiles = np.arange(5.0)[:, np.newaxis, np.newaxis] * np.ones((5, 30, 24))
    mosaic = plots._mosaic(tiles, 3)
    assert mosaic.shape == (62, 76)
    expected = [[0, 1, 2], [3, 4, np.nan]]
    np.testing.assert_array_equal(mosaic[15::32, 12::26], expected)
    assert np.isnan(mosaic[30:32]).all()
    assert np.isnan(mosaic[:, 24:26]).all()


def test_feature_maps(path: Path, drawn: list[Figure], rng: np.random.Generator) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 5, (3, 2), activation="relu", rng=0), nn.MaxPool2d(2), nn.Flatten()
    )
    x = rng.random((2, 11, 8), np.float32)
    plots.feature_maps(model, x, path)
    assert model.training, "the mode it was in"
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert titles == ["input, 11 x 8", "Conv2d: 5 maps of 9 x 7", "MaxPool2d: 5 maps of 4 x 3"]
    pooled = model.layers[1].forward(model.layers[0].forward(x[np.newaxis]))
    assert np.nanmax(pixels(drawn[0].axes[2])) == pytest.approx(pooled.max())


def test_feature_maps_want_one_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image has shape \(1, 2, 9, 7\), expected \(C, H, W\)"):
        plots.feature_maps(nn.Sequential(), np.zeros((1, 2, 9, 7)), tmp_path / "picture.png")


def test_confusion_matrix(path: Path, drawn: list[Figure]) -> None:
    labels, predictions = [0, 0, 0, 1, 1, 2], [0, 0, 2, 1, 1, 0]
    names = ["cat", "dog", "bird", "fish"]
    plots.confusion_matrix(labels, predictions, path, names=names, title="animals")
    (axes,) = drawn[0].axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "2", (2, 0): "1", (1, 1): "2", (0, 2): "1"}, "x is the prediction"
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["cat  (66.7%)", "dog  (100.0%)", "bird  (0.0%)", "fish  (none)"]
    assert axes.get_title() == "animals: 4 of 6 right"


def test_misclassified(path: Path, drawn: list[Figure], rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (60, 1, 9, 7), np.uint8)
    labels = np.zeros(60, np.int64)
    sure = np.linspace(0.55, 0.99, 60)
    probabilities = np.stack([1 - sure, sure], axis=1)
    probabilities[:10] = [1, 0]
    plots.misclassified(x, labels, probabilities, path, names=["no", "yes"], title="Wrong")
    assert "Wrong: 50 of 60, the 40 surest shown" in texts(drawn[0])
    (axes,) = drawn[0].axes
    assert len(axes.images) == 40
    np.testing.assert_array_equal(axes.images[0].get_array(), x[59, 0])
    assert axes.texts[0].get_text() == "no as yes\n99%"


def test_nothing_misclassified(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.misclassified(
        np.zeros((3, 1, 9, 7)), [0, 1, 1], np.eye(2)[[0, 1, 1]], tmp_path / "picture.png"
    )
    assert "0 of 3" in texts(drawn[0])


def test_comparison(path: Path, drawn: list[Figure]) -> None:
    better = [row | {"val_accuracy": 0.95} for row in ROWS]
    runs = [plots.Run("convnet", 1234, better), plots.Run("dense", 56789, ROWS)]
    plots.comparison(runs, path)
    curves, errors, parameters, seconds = drawn[0].axes
    assert [line.get_label() for line in curves.lines] == ["convnet", "dense"]
    np.testing.assert_allclose(values(curves), [[5, 5], [40, 20]])
    for axes, expected in ((errors, [5, 20]), (parameters, [1234, 56789]), (seconds, [3, 3])):
        np.testing.assert_allclose(heights(axes), expected)
    assert "56,789" in texts(drawn[0])
