"""Initial weights. Shapes are (K, C/groups, R, S) for filters, (out, in) for dense weights."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ..ops.options import Activation
from .layer import Array

RNG: TypeAlias = np.random.Generator | int | None


def he_normal(shape: tuple[int, ...], rng: RNG = None, dtype: DTypeLike = "float32") -> Array:
    """Normal with standard deviation sqrt(2 / fan_in), for layers followed by ReLU.

    He, Zhang, Ren, Sun: Delving Deep into Rectifiers, 2015, arXiv 1502.01852.
    """
    fan_in, _ = _fans(shape)
    weight = np.random.default_rng(rng).standard_normal(shape, floating(dtype))
    weight *= math.sqrt(2.0 / fan_in)
    return weight


def glorot_uniform(shape: tuple[int, ...], rng: RNG = None, dtype: DTypeLike = "float32") -> Array:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)), for linear, sigmoid and softmax outputs.

    Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks, 2010.
    """
    weight = np.random.default_rng(rng).random(shape, floating(dtype))
    weight -= 0.5
    weight *= 2.0 * math.sqrt(6.0 / sum(_fans(shape)))
    return weight


def for_activation(
    activation: Activation, shape: tuple[int, ...], rng: RNG, dtype: DTypeLike
) -> Array:
    """The layers' default: He before a fused ReLU, Glorot otherwise."""
    draw = he_normal if activation == "relu" else glorot_uniform
    return draw(shape, rng, dtype)


def floating(dtype: DTypeLike) -> type[np.float32] | type[np.float64]:
    """`dtype` as the scalar type of a parameter."""
    for kind in (np.float32, np.float64):
        if np.dtype(dtype) == kind:
            return kind
    raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs an output sums, and how many outputs an input feeds."""
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps
