"""New arrays, and the error that says which one there is no memory for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def new_array(xp: Any, shape: tuple[int, ...], dtype: Any, name: str) -> Any:
    """An array that is not filled; a MemoryError names it where there is no memory for it.

    NumPy has a ValueError for what no memory could ever hold.
    """
    try:
        return xp.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize / 2**30
        raise MemoryError(
            f"{name} of shape {shape} and dtype {kind} takes {size:.3g} GiB, which cannot be had: "
            "compute a part at a time"
        ) from error
