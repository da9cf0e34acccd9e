"""Checks of arguments that several modules make."""

from __future__ import annotations

import math


def check(name: str, value: float, valid: bool, expected: str) -> None:
    """Raise ValueError unless `value` is `valid` and finite."""
    if not (valid and math.isfinite(value)):
        raise ValueError(f"{name} is {value}, expected {expected}")
