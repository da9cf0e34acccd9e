"""From the bytes of an image to the numbers a network wants."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_float(x: Any) -> Any:
    """Scale uint8 pixels of any shape to float32 in [0, 1]; a new array of the same kind.

    Raises TypeError for any other dtype, so that an image is never scaled twice.
    """
    if getattr(x, "dtype", None) != np.uint8:
        raise TypeError(
            f"x has dtype {getattr(x, 'dtype', type(x).__name__)}, expected uint8 pixels; "
            "a float image needs no conversion"
        )
    return np.divide(x, np.float32(255), dtype=np.float32)
