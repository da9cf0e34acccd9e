"""A picture of one handwritten digit, brought into the form that MNIST's images have.

MNIST's digits are white on black, scaled to fit 20 x 20 pixels with their aspect ratio kept, and
placed in 28 x 28 with their centre of mass in the middle (LeCun et al. 1998, section III-A).
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._backend.extras import require

if TYPE_CHECKING:
    from PIL import Image

Gray: TypeAlias = NDArray[np.float32]  # (H, W)

SIDE, DIGIT_SIDE = 28, 20
INK = 0.2  # part of the strongest ink from which a pixel belongs to the digit, not to the paper


def read_digit(path: Path) -> NDArray[np.uint8]:
    """Read a PNG, JPEG or other Pillow format, or a .npy array, as uint8 (1, 28, 28).

    The polarity is told by the border: a digit on a light ground is inverted. An image of 28 x 28
    on black is taken as it is. A .npy file holds uint8, or floats in [0, 1], of shape (H, W) or
    (1, H, W). Raises OSError or ValueError, naming the file, if it holds no such image.
    """
    gray = _read_npy(path) if path.suffix == ".npy" else _read_picture(path)
    ground = _ground(gray)
    if gray.shape == (SIDE, SIDE) and ground == 0:
        return gray.astype(np.uint8)[np.newaxis]
    ink = np.maximum(ground - gray if ground > 127 else gray - ground, 0)
    strongest = ink.max()
    if strongest < 1:
        raise ValueError(f"{path}: no digit in it, the image is blank")
    return _centre(_fit(ink / strongest))[np.newaxis]


def _ground(gray: Gray) -> np.float32:
    """The brightness of the paper: the median along the border."""
    border = (gray[0], gray[-1], gray[:, 0], gray[:, -1])
    return np.float32(np.median(np.concatenate(border)))


def _read_picture(path: Path) -> Gray:
    """Gray levels 0 to 255; what is transparent counts as white."""
    pillow: Any = require("PIL.Image", "train")
    orient = require("PIL.ImageOps", "train").exif_transpose
    try:
        with pillow.open(path) as picture:
            upright: Image.Image = orient(picture)
            if upright.mode.startswith("I"):  # 16-bit gray, which convert() would clip
                return np.asarray(upright, np.float32) / np.float32(257)
            colour = upright.convert("RGBA")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        if getattr(error, "errno", None) is not None:  # the system's word, with the path in it
            raise
        raise ValueError(f"{path}: not a readable image ({error})") from None
    paper = pillow.new("RGBA", colour.size, "white")
    gray: Gray = np.asarray(pillow.alpha_composite(paper, colour).convert("L"), np.float32)
    return gray


def _read_npy(path: Path) -> Gray:
    """Gray levels 0 to 255."""
    content = path.read_bytes()
    try:
        array = _parse_npy(content)
    except (OverflowError, SyntaxError, TokenError, TypeError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable .npy file ({problem})") from None
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{path}: array of shape {array.shape}, expected (H, W) or (1, H, W)")
    if array.dtype == np.uint8:
        return array.astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"{path}: array of {array.dtype}, expected uint8 or floating point within [0, 1]"
        )
    gray: Gray = np.rint(array * 255).astype(np.float32)
    return gray


def _parse_npy(content: bytes) -> NDArray[Any]:
    """The array as a view of the bytes: none is made for lengths that the header merely claims."""
    stream = BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"format version {version}, expected (1, 0)")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    cells: NDArray[Any] = np.frombuffer(content, dtype, offset=stream.tell())
    return cells.reshape(shape, order="F" if in_columns else "C")


def _fit(ink: Gray) -> Gray:
    """The digit cut out of `ink`, in [0, 1], its longer side scaled to 20 pixels."""
    pillow: Any = require("PIL.Image", "train")
    rows, columns = (np.flatnonzero((ink >= INK).any(axis=axis)) for axis in (1, 0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = DIGIT_SIDE / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    resized = pillow.fromarray(digit).resize((width, height), pillow.Resampling.LANCZOS)
    fitted: Gray = np.clip(np.asarray(resized), 0, 1)  # Lanczos overshoots at edges
    return fitted


def _centre(digit: Gray) -> NDArray[np.uint8]:
    """The digit in 28 x 28, its centre of mass as near the middle as the frame allows."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    corner = []
    for axis, extent in enumerate(digit.shape):
        mass = digit.sum(axis=1 - axis)
        centre = np.average(np.arange(extent) + 0.5, weights=mass)
        corner.append(min(max(round(SIDE / 2 - centre), 0), SIDE - extent))
    top, left = corner
    height, width = digit.shape
    canvas[top : top + height, left : left + width] = np.rint(digit * 255)
    return canvas
