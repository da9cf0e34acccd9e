"""Gradients by central differences, to hold the written ones against."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv import nn

AnyArray = npt.NDArray[Any]

STEP = 1e-6  # the rounding error of a difference is about 1e-16 * |objective| / STEP


def numeric_gradient(objective: Callable[[], float], array: AnyArray) -> AnyArray:
    """dobjective/darray in float64, moving each element of `array` in place and back."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + STEP
        above = objective()
        array[index] = value - STEP
        gradient[index] = (above - objective()) / (2 * STEP)
        array[index] = value
    return gradient


def assert_gradient(actual: AnyArray | None, objective: Callable[[], float], at: AnyArray) -> None:
    """`actual` is dobjective/dat, in its shape and dtype."""
    expected = numeric_gradient(objective, at)
    assert actual is not None
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


def assert_layer_gradients(layer: nn.Layer, x: AnyArray, rng: np.random.Generator) -> None:
    """`layer.backward` gives the input's gradient and overwrites every parameter's."""
    for parameter in layer.parameters():
        parameter.grad.fill(np.nan)
        if not parameter.data.any():  # a zero bias: a kink of ReLU where a window sees only padding
            parameter.data[...] = rng.standard_normal(parameter.data.shape)
    dy = rng.standard_normal(layer.forward(x).shape)
    given = dy.copy()
    dx = layer.backward(dy)
    np.testing.assert_array_equal(dy, given)

    def objective() -> float:
        return float((layer.forward(x) * dy).sum())

    assert_gradient(dx, objective, x)
    for parameter in layer.parameters():
        assert_gradient(parameter.grad, objective, parameter.data)


def spread(shape: tuple[int, ...], rng: np.random.Generator) -> AnyArray:
    """Shuffled, evenly spaced float64 in [-2, 2], none 0: no ties and no kink within STEP."""
    size = int(np.prod(shape))
    return rng.permutation(np.linspace(-2, 2, size + size % 2)[:size]).reshape(shape)
