"""One definition for one, two and three spatial axes.

An op is written over images, with a keyword `_axes` of 2. Over lines and volumes it is the same
code under another name, with other defaults and with the letters of its docstring replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

Op = TypeVar("Op", bound=Callable[..., Any])

# What an image is called, and what stands there for a line and for a volume.
_LETTERS = (
    ("2d", "1d", "3d"),
    ("HW", "W", "DHW"),
    ("h * W + w", "w", "(d * H + h) * W + w"),
    ("H * W", "W", "D * H * W"),
    ("H, W", "W", "D, H, W"),
    ("R, S", "S", "T, R, S"),
    ("P, Q", "Q", "Z, P, Q"),
    ("1, 1", "1", "1, 1, 1"),
    ("p, q", "q", "z, p, q"),
    ("r, s", "s", "t, r, s"),
    ("images", "lines", "volumes"),
)


def other_ranks(op: Op) -> tuple[Op, Op]:
    """The forms of a 2-D op for one and for three spatial axes."""
    _hide_axes(cast(FunctionType, op))
    return cast(Op, _at_rank(op, 1)), cast(Op, _at_rank(op, 3))


def _at_rank(op: Any, axes: int) -> FunctionType:
    name = _spell(op.__name__, axes)
    code = op.__code__.replace(co_name=name, co_qualname=name)
    copy = FunctionType(code, op.__globals__, name, op.__defaults__)
    copy.__kwdefaults__ = {
        key: _spell(value, axes) if key == "layout" else value
        for key, value in op.__kwdefaults__.items()
    }
    copy.__kwdefaults__["_axes"] = axes
    copy.__annotations__ = op.__annotations__
    copy.__doc__ = _spell(op.__doc__, axes)
    copy.__module__ = op.__module__
    _hide_axes(copy)
    return copy


def _spell(text: str, axes: int) -> str:
    for image, line, volume in _LETTERS:
        text = text.replace(image, line if axes == 1 else volume)
    return text


def _hide_axes(op: Any) -> None:
    signature = inspect.signature(op)
    shown = [p for name, p in signature.parameters.items() if name != "_axes"]
    op.__signature__ = signature.replace(parameters=shown)
