"""Ready-made networks, untrained; all end in logits. `build("name")` makes one by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .nn import Conv2d, Flatten, Linear, MaxPool2d, Sequential
from .nn.init import RNG


def mnist_convnet(rng: RNG = None) -> Sequential:
    """The convnet of the introductory texts, for (N, 1, 28, 28), 10 classes, 93,322 parameters.

    F. Chollet: Deep Learning with Python, 2017, section 5.1.
    """
    rng = np.random.default_rng(rng)
    return Sequential(
        Conv2d(1, 32, 3, activation="relu", rng=rng),
        MaxPool2d(2),
        Conv2d(32, 64, 3, activation="relu", rng=rng),
        MaxPool2d(2),
        Conv2d(64, 64, 3, activation="relu", rng=rng),
        Flatten(),
        Linear(64 * 3 * 3, 64, activation="relu", rng=rng),
        Linear(64, 10, rng=rng),
        name="mnist_convnet",
    )


def mlp(rng: RNG = None) -> Sequential:
    """The dense net that the texts set beside it: (N, 1, 28, 28), 10 classes, 407,050 parameters.

    F. Chollet: Deep Learning with Python, 2017, section 2.1.
    """
    rng = np.random.default_rng(rng)
    return Sequential(
        Flatten(),
        Linear(28 * 28, 512, activation="relu", rng=rng),
        Linear(512, 10, rng=rng),
        name="mlp",
    )


_BUILDERS: dict[str, Callable[..., Sequential]] = {"mnist_convnet": mnist_convnet, "mlp": mlp}

NAMES = tuple(_BUILDERS)


def build(name: str, **kwargs: Any) -> Sequential:
    """The model called `name`, one of NAMES, with the keywords of its function."""
    if name not in _BUILDERS:
        raise ValueError(f"model is {name!r}, expected one of {', '.join(NAMES)}")
    return _BUILDERS[name](**kwargs)
