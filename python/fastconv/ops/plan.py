"""What a call would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import _core
from .._backend import geometry as _geometry
from .._backend.geometry import AxisArgument, PaddingArgument
from .options import Layout

_AXES = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


@dataclass(frozen=True)
class Plan:
    """What a call would do, and why; str(plan) says it in words."""

    op: str
    pass_: str
    algorithm: str
    reason: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str
    flops: float  # of the definition, multiplications and additions
    isa: str
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.op} {self.pass_}: x {self.x_shape}, w {self.w_shape} -> y {self.output_shape}, "
            f"{self.dtype}\n"
            f"  algorithm  {self.algorithm} ({self.reason})\n"
            f"  arithmetic {self.flops / 1e6:.4g} MFLOP by the definition\n"
            f"  runs on    {self.isa}, up to {self.threads} threads"
        )


def explain(
    op: str,
    x_shape: Iterable[int],
    w_shape: Iterable[int],
    *,
    pass_: Literal["forward", "input", "weight"] = "forward",
    dtype: Any = "float32",
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout | None = None,
    algorithm: str = "auto",
) -> Plan:
    """How a call of `op` with these shapes would be computed, without computing it.

    op is "conv1d", "conv2d" or "conv3d"; the layout is channels first unless given.
    """
    if op not in _AXES:
        raise ValueError(f'op must be "conv1d", "conv2d" or "conv3d", got {op!r}')
    axes = _AXES[op]
    if pass_ not in ("forward", "input", "weight"):
        raise ValueError(f'pass_ must be "forward", "input" or "weight", got {pass_!r}')
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype must be float32 or float64, got {name}")
    x = _geometry.shape_of(x_shape, "x_shape", axes)
    w = _geometry.shape_of(w_shape, "w_shape", axes)
    geometry, y = _geometry.conv_geometry(
        axes, x, w, stride, padding, dilation, groups, layout or _geometry.LAYOUTS[axes][0]
    )
    chosen, reason = _core.plan_conv(geometry, pass_, name == "float32", algorithm)
    return Plan(
        op,
        pass_,
        chosen,
        reason,
        x,
        w,
        y,
        name,
        geometry.flops,
        _core.isa(),
        _core.num_threads(),
    )
