"""What the arguments of several ops are, and their checks that need no geometry."""

from __future__ import annotations

from typing import Any, Literal

from .._backend import geometry as _geometry

Array = Any  # numpy.ndarray, or anything with __dlpack__
Layout = Literal["NCW", "NWC", "NCHW", "NHWC", "NCDHW", "NDHWC"]


def is_relu(activation: str | None) -> bool:
    """Whether the activation is ReLU and not None."""
    if activation not in (None, "relu"):
        raise ValueError(f'activation must be None or "relu", got {activation!r}')
    return activation is not None


def channel_axis(a: Array, layout: str, axes: int, name: str = "dy") -> int:
    """The axis of a's channels, once it is known to have all axes of the layout."""
    channels_last = _geometry.check_layout(layout, axes)
    if a.ndim != axes + 2:
        hint = ": add a batch axis with x[None]" if (name, a.ndim) == ("x", axes + 1) else ""
        raise ValueError(f"{name} must have {axes + 2} axes ({layout}), got shape {a.shape}{hint}")
    return -1 if channels_last else 1
