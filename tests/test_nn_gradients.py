"""Every layer's backward pass against finite differences, in float64 and both layouts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastconv import nn
from gradients import assert_layer_gradients, numeric_gradient, spread

F64 = "float64"
UNEVEN: dict[str, Any] = {"stride": (2, 1), "padding": ((2, 0), (1, 3)), "dilation": (1, 2)}


def nested(rng: np.random.Generator) -> nn.Layer:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, (3, 2), padding=1, dtype=F64, rng=rng), nn.ReLU()),
        nn.MaxPool2d((2, 3), stride=(1, 2)),
        nn.Flatten(),
        nn.Linear(3 * 2 * 2, 5, activation="relu", dtype=F64, rng=rng),
        nn.Sigmoid(),
        nn.Linear(5, 4, dtype=F64, rng=rng),
    )


def residual(rng: np.random.Generator) -> nn.Layer:
    """A strided block with a shortcut of its own, then one that adds its input."""
    body = nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=((1, 1), (1, 0)), dtype=F64, rng=rng),
        nn.BatchNorm2d(3, activation="relu", dtype=F64),
        nn.Conv2d(3, 4, (1, 3), padding="same", bias=False, dtype=F64, rng=rng),
    )
    shortcut = nn.Conv2d(2, 4, 1, stride=(2, 1), dtype=F64, rng=rng)
    same = nn.Conv2d(4, 4, (3, 1), padding=((1, 1), (0, 0)), dtype=F64, rng=rng)
    return nn.Sequential(nn.Residual(body, shortcut), nn.Residual(same, activation=None))


LAYERS: dict[str, tuple[Callable[[np.random.Generator], nn.Layer], tuple[int, ...]]] = {
    "conv": (lambda rng: nn.Conv2d(3, 4, (2, 3), dtype=F64, rng=rng), (2, 3, 5, 4)),
    "conv-uneven": (
        lambda rng: nn.Conv2d(2, 3, (3, 2), **UNEVEN, dtype=F64, rng=rng),
        (2, 2, 6, 5),
    ),
    "conv-groups": (
        lambda rng: nn.Conv2d(4, 6, (1, 3), groups=2, padding="same", dtype=F64, rng=rng),
        (2, 4, 3, 5),
    ),
    "conv-relu": (
        lambda rng: nn.Conv2d(2, 5, (3, 2), activation="relu", dtype=F64, rng=rng),
        (3, 2, 5, 4),
    ),
    "conv-nobias": (lambda rng: nn.Conv2d(2, 3, 2, bias=False, dtype=F64, rng=rng), (2, 2, 4, 3)),
    "conv-nhwc": (
        lambda rng: nn.Conv2d(
            3, 2, (3, 2), **UNEVEN, activation="relu", layout="NHWC", dtype=F64, rng=rng
        ),
        (2, 6, 5, 3),
    ),
    "transposed": (
        lambda rng: nn.ConvTranspose2d(
            *(4, 6, (3, 2)),
            **{**UNEVEN, "padding": ((1, 0), (0, 1))},
            output_padding=(1, 0),
            groups=2,
            activation="relu",
            dtype=F64,
            rng=rng,
        ),
        (2, 4, 3, 4),
    ),
    "transposed-nhwc": (
        lambda rng: nn.ConvTranspose2d(
            3, 2, (2, 3), stride=2, padding="same", layout="NHWC", dtype=F64, rng=rng
        ),
        (2, 4, 3, 3),
    ),
    "pool": (lambda rng: nn.MaxPool2d((2, 3)), (2, 3, 5, 7)),
    "pool-overlap": (lambda rng: nn.MaxPool2d((3, 2), stride=(1, 2), padding=1), (2, 2, 5, 4)),
    "pool-nhwc": (lambda rng: nn.MaxPool2d((3, 2), stride=2, layout="NHWC"), (2, 6, 5, 3)),
    "avg-pool": (
        lambda rng: nn.AvgPool2d((3, 2), stride=(1, 2), padding=1, count_include_pad=False),
        (2, 2, 5, 4),
    ),
    "avg-pool-nhwc": (
        lambda rng: nn.AvgPool2d((2, 3), ceil_mode=True, layout="NHWC"),
        (2, 5, 7, 3),
    ),
    "adaptive": (lambda rng: nn.AdaptiveAvgPool2d((3, 2)), (2, 3, 7, 5)),
    "global": (lambda rng: nn.GlobalAvgPool2d(), (2, 3, 4, 5)),
    "global-nhwc": (lambda rng: nn.GlobalAvgPool2d(layout="NHWC"), (2, 4, 5, 3)),
    "transposed1d": (
        lambda rng: nn.ConvTranspose1d(3, 2, 4, stride=3, output_padding=2, dtype=F64, rng=rng),
        (2, 3, 5),
    ),
    "transposed3d-ndhwc": (
        lambda rng: nn.ConvTranspose3d(
            2, 4, (2, 1, 3), stride=(1, 2, 2), groups=2, layout="NDHWC", dtype=F64, rng=rng
        ),
        (2, 2, 3, 2, 2),
    ),
    "pool1d": (lambda rng: nn.MaxPool1d(3, stride=2, padding=1), (2, 3, 8)),
    "pool3d-ndhwc": (
        lambda rng: nn.MaxPool3d((1, 2, 3), stride=(1, 2, 1), layout="NDHWC"),
        (2, 2, 5, 4, 3),
    ),
    "avg-pool1d-nwc": (lambda rng: nn.AvgPool1d(3, padding=1, layout="NWC"), (2, 7, 4)),
    "avg-pool3d": (lambda rng: nn.AvgPool3d((2, 3, 1), ceil_mode=True), (2, 2, 3, 5, 2)),
    "adaptive1d": (lambda rng: nn.AdaptiveAvgPool1d(3), (2, 3, 7)),
    "adaptive3d": (lambda rng: nn.AdaptiveAvgPool3d((2, 1, 3)), (2, 2, 3, 4, 5)),
    "global1d-nwc": (lambda rng: nn.GlobalAvgPool1d(layout="NWC"), (2, 5, 3)),
    "global3d": (lambda rng: nn.GlobalAvgPool3d(), (2, 3, 2, 4, 3)),
    "conv1d": (
        lambda rng: nn.Conv1d(2, 4, 3, stride=2, padding=((2, 1),), dtype=F64, rng=rng),
        (3, 2, 9),
    ),
    "conv1d-nwc": (
        lambda rng: nn.Conv1d(
            4, 2, 2, groups=2, activation="relu", layout="NWC", dtype=F64, rng=rng
        ),
        (2, 7, 4),
    ),
    "conv3d": (
        lambda rng: nn.Conv3d(
            2,
            3,
            (2, 3, 1),
            stride=(1, 2, 1),
            padding=(1, 0, 1),
            activation="relu",
            dtype=F64,
            rng=rng,
        ),
        (2, 2, 3, 5, 2),
    ),
    "linear": (lambda rng: nn.Linear(7, 5, dtype=F64, rng=rng), (3, 7)),
    "linear-relu": (lambda rng: nn.Linear(7, 5, activation="relu", dtype=F64, rng=rng), (3, 7)),
    "linear-nobias": (lambda rng: nn.Linear(4, 3, bias=False, dtype=F64, rng=rng), (5, 4)),
    "relu": (lambda rng: nn.ReLU(), (2, 3, 4, 5)),
    "leaky-relu": (lambda rng: nn.LeakyReLU(0.2), (2, 3, 4, 5)),
    "tanh": (lambda rng: nn.Tanh(), (3, 5)),
    "residual": (residual, (2, 2, 5, 4)),
    "residual-identity": (
        lambda rng: nn.Residual(nn.Linear(5, 5, dtype=F64, rng=rng)),
        (3, 5),
    ),
    "sigmoid": (lambda rng: nn.Sigmoid(), (3, 5)),
    "softmax": (lambda rng: nn.Softmax(), (3, 5)),
    "softmax-last": (lambda rng: nn.Softmax(axis=-1), (2, 3, 4)),
    "flatten": (lambda rng: nn.Flatten(), (2, 3, 4, 2)),
    "nested": (nested, (2, 2, 3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_match_finite_differences(name: str, rng: np.random.Generator) -> None:
    make, shape = LAYERS[name]
    assert_layer_gradients(make(rng), spread(shape, rng), rng)


def test_dropout_gradient_uses_the_mask_of_the_forward_pass(rng: np.random.Generator) -> None:
    layer = nn.Dropout(0.4)
    x = spread((5, 7), rng)

    def masked() -> float:
        layer.seed(np.random.default_rng(5))
        return float((layer.forward(x) * dy).sum())

    dy = rng.standard_normal(x.shape)
    masked()
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, numeric_gradient(masked, x), rtol=1e-6, atol=1e-7)
    assert 0 < np.count_nonzero(dx) < dx.size


def test_numeric_gradient_of_a_cube(rng: np.random.Generator) -> None:
    x = spread((3, 4), rng)
    np.testing.assert_allclose(numeric_gradient(lambda: float((x**3).sum()), x), 3 * x**2, 1e-6)
