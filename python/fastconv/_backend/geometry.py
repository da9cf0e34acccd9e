"""From the keywords of a call to its geometry, which C++ checks and computes; it is cached."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from .. import _core

PaddingArgument: TypeAlias = "int | str | Iterable[int] | Iterable[tuple[int, int]]"
AxisArgument: TypeAlias = "int | Iterable[int]"
Ints: TypeAlias = tuple[int, ...]

_CACHED = 1024  # geometries; a network has tens


def _is_int(value: Any) -> bool:
    """Whether the value counts as one int; a bool does not, an array with axes neither."""
    if type(value) is int:  # nearly always
        return True
    return hasattr(value, "__index__") and not isinstance(value, bool) and np.ndim(value) == 0


def integer(value: Any, name: str) -> int:
    """The value as an int of fewer than 63 bits."""
    index: int = value
    if type(value) is not int:  # seldom: the rest would take a third of a small call
        if not _is_int(value):
            kind = type(value).__name__
            raise TypeError(f"{name} must be an int or ints, got {value!r} ({kind})")
        index = operator.index(value)
    if not -(2**62) < index < 2**62:  # C++ checks the rest in 64 bits
        raise ValueError(f"{name} must be below 2**62, got {index}")
    return index


def _sequence(value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} must be an int or ints, got {value!r} ({type(value).__name__})")
    return tuple(value)


def per_axis(value: AxisArgument, name: str, axes: int) -> Ints:
    """One int per spatial axis from an int or as many ints."""
    if _is_int(value):
        return (integer(value, name),) * axes
    entries = tuple(integer(v, name) for v in _sequence(value, name))
    if len(entries) != axes:
        raise ValueError(f"{name} must be an int or {axes} of them, one per axis, got {entries}")
    return entries


def shape_of(value: Any, name: str, axes: int) -> Ints:
    """A shape of two axes and the spatial ones, given as a tuple or list of ints."""
    shape = tuple([integer(v, name) for v in _sequence(value, name)])
    if len(shape) != axes + 2:
        raise ValueError(f"{name} must have {axes + 2} entries, got {shape}")
    if min(shape) < 0:
        raise ValueError(f"{name} must not be negative, got {shape}")
    return shape


def paddings(value: PaddingArgument, axes: int) -> str | tuple[tuple[int, int], ...]:
    """A padding word, or one (before, after) pair per axis."""
    if isinstance(value, str):
        return value
    if _is_int(value):
        p = integer(value, "padding")
        return ((p, p),) * axes
    entries = _sequence(value, "padding")
    nested = [hasattr(e, "__iter__") and not isinstance(e, str) for e in entries]
    if entries and all(nested):
        pairs = tuple(tuple(integer(p, "padding") for p in e) for e in entries)
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"padding must give a (before, after) pair per axis, got {value!r}")
        return tuple((before, after) for before, after in pairs)
    if any(nested):
        raise ValueError(f"padding must be all ints or all (before, after) pairs, got {value!r}")
    if len(entries) != axes:
        raise ValueError(
            f"padding has {len(entries)} entries for {axes} axes: {_hint(entries, axes)}"
        )
    return tuple((p, p) for p in (integer(e, "padding") for e in entries))


def _hint(entries: tuple[Any, ...], axes: int) -> str:
    """The right form for a padding that came as a flat list."""
    if axes == 1 and len(entries) == 2:
        return f"for (left, right) write padding=(({entries[0]}, {entries[1]}),)"
    if axes == 2 and len(entries) == 4:
        return (
            "for (top, bottom) and (left, right) write padding=((top, bottom), (left, right)); "
            "ONNX orders a flat list top, left, bottom, right and F.pad left, right, top, bottom"
        )
    return "write an int, one int per axis, or one (before, after) pair per axis"


@lru_cache(_CACHED)
def _conv(
    axes: int,
    x: Ints,
    w: Ints,
    stride: int | Ints,
    padding: int | str | tuple[tuple[int, int], ...],
    dilation: int | Ints,
    groups: int,
    layout: str,
) -> tuple[_core.ConvGeometry, Ints]:
    check_layout(layout, axes)
    geometry = _core.ConvGeometry(
        x,
        w,
        per_axis(stride, "stride", axes),
        paddings(padding, axes),
        per_axis(dilation, "dilation", axes),
        integer(groups, "groups"),
        layout,
    )
    return geometry, geometry.output_shape


@lru_cache(_CACHED)
def _transposed(
    x: Ints,
    w: Ints,
    stride: Ints,
    padding: str | tuple[tuple[int, int], ...],
    output_padding: Ints,
    dilation: Ints,
    groups: int,
    layout: str,
) -> tuple[_core.ConvGeometry, Ints]:
    geometry = _core.transposed_geometry(
        x, w, stride, padding, output_padding, dilation, groups, layout
    )
    return geometry, geometry.input_shape


@lru_cache(_CACHED)
def _pool(
    axes: int,
    x: Ints,
    kernel_size: int | Ints,
    stride: int | Ints | None,
    padding: int | str | tuple[tuple[int, int], ...],
    dilation: int | Ints,
    ceil_mode: bool,
    layout: str,
) -> tuple[_core.PoolGeometry, Ints]:
    check_layout(layout, axes)
    kernel = per_axis(kernel_size, "kernel_size", axes)
    geometry = _core.PoolGeometry(
        x,
        kernel,
        kernel if stride is None else per_axis(stride, "stride", axes),
        paddings(padding, axes),
        per_axis(dilation, "dilation", axes),
        ceil_mode,
        layout,
    )
    return geometry, geometry.output_shape


def conv_geometry(
    axes: int,
    x: Ints,
    w: Ints,
    stride: AxisArgument,
    padding: PaddingArgument,
    dilation: AxisArgument,
    groups: int,
    layout: str,
) -> tuple[_core.ConvGeometry, Ints]:
    """The geometry of a convolution of shapes x and w, and the shape of its output."""
    if not (
        (type(stride) is int and type(dilation) is int and type(groups) is int)
        and (type(padding) is int or type(padding) is str)
        and type(layout) is str
    ):  # to the cache True and 1.0 are 1: what is no plain number is checked before
        check_layout(layout, axes)
        stride, dilation = per_axis(stride, "stride", axes), per_axis(dilation, "dilation", axes)
        padding, groups = paddings(padding, axes), integer(groups, "groups")
    return _conv(axes, x, w, stride, padding, dilation, groups, layout)


def transposed_geometry(
    axes: int,
    x: Ints,
    w: Ints,
    stride: AxisArgument,
    padding: PaddingArgument,
    output_padding: AxisArgument,
    dilation: AxisArgument,
    groups: int,
    layout: str,
) -> tuple[_core.ConvGeometry, Ints]:
    """The convolution whose adjoint takes shape x by w, and the shape of the adjoint's output."""
    check_layout(layout, axes)
    return _transposed(
        x,
        w,
        per_axis(stride, "stride", axes),
        paddings(padding, axes),
        per_axis(output_padding, "output_padding", axes),
        per_axis(dilation, "dilation", axes),
        integer(groups, "groups"),
        layout,
    )


def pool_geometry(
    axes: int,
    x: Ints,
    kernel_size: AxisArgument,
    stride: AxisArgument | None,
    padding: PaddingArgument,
    dilation: AxisArgument,
    ceil_mode: bool,
    layout: str,
) -> tuple[_core.PoolGeometry, Ints]:
    """The geometry of a pool over shape x, and the shape of its output."""
    if not (
        (type(kernel_size) is int and type(dilation) is int and type(layout) is str)
        and (stride is None or type(stride) is int)
        and (type(padding) is int or type(padding) is str)
    ):  # as for a convolution
        check_layout(layout, axes)
        kernel_size = per_axis(kernel_size, "kernel_size", axes)
        stride = None if stride is None else per_axis(stride, "stride", axes)
        padding, dilation = paddings(padding, axes), per_axis(dilation, "dilation", axes)
    return _pool(axes, x, kernel_size, stride, padding, dilation, bool(ceil_mode), layout)


@lru_cache(_CACHED)
def _adaptive(x: Ints, output_size: Ints, layout: str) -> tuple[_core.PoolGeometry, Ints]:
    geometry = _core.adaptive_geometry(x, output_size, layout)
    return geometry, geometry.output_shape


def adaptive_geometry(
    axes: int, x: Ints, output_size: AxisArgument, layout: str
) -> tuple[_core.PoolGeometry, Ints]:
    """The geometry of windows that share shape x evenly, and the shape of the output."""
    check_layout(layout, axes)
    return _adaptive(x, per_axis(output_size, "output_size", axes), layout)


LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


def check_layout(layout: str, axes: int) -> bool:
    """Whether the channels come last."""
    first, last = LAYOUTS[axes]
    if layout not in (first, last):
        raise ValueError(f'layout must be "{first}" or "{last}", got {layout!r}')
    return layout == last
