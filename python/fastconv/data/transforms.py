"""From the bytes of images to what a network is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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


def augment(
    x: NDArray[Any], rng: np.random.Generator | int | None, *, shift: int = 4, flip: bool = True
) -> NDArray[Any]:
    """Move each image of x (N, C, H, W) by up to `shift` pixels, and mirror every second or so.

    A shift is drawn from [-shift, shift] for each axis; what comes in from outside is zero. This
    is the crop of an image padded by `shift` that is usual for CIFAR-10 (He et al. 2016, section
    4.2); digits and letters want flip=False. Returns a new array; the same rng, the same images.
    Made for `Sequential.fit(..., augment=...)`.
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}, expected (N, C, H, W)")
    if shift < 0:
        raise ValueError(f"shift is {shift}, expected at least 0")
    rng = np.random.default_rng(rng)
    n, _, *sides = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, sides, axis=(2, 3))
    down, right = rng.integers(0, 2 * shift + 1, (2, n))
    moved: NDArray[Any] = windows[np.arange(n), :, down, right]
    if flip:
        mirrored = rng.random(n) < 0.5
        moved[mirrored] = moved[mirrored, ..., ::-1]
    return moved
