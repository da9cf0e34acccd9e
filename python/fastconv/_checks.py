"""Checks of arguments that several modules make, all in one voice: what it must be, what came."""

from __future__ import annotations

import math
import operator


def check(name: str, value: float, valid: bool, expected: str) -> None:
    """Raise ValueError unless `value` is `valid` and finite."""
    if not (valid and math.isfinite(value)):
        raise ValueError(f"{name} must be {expected}, got {value}")


def positive(name: str, value: int) -> int:
    """`value` as an int of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def is_relu(activation: str | None) -> bool:
    """Whether the activation is ReLU and not None: the kernels apply these in the same pass."""
    if activation is None:
        return False
    if activation != "relu":
        raise ValueError(
            f'activation must be None or "relu", got {activation!r}: apply another one afterwards'
        )
    return True
