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

_OPS = {f"{op}{axes}d": (op, axes) for op in ("conv", "conv_transpose") for axes in (1, 2, 3)}
# A pass of a transposed convolution as one of the convolution that it is the adjoint of.
_TRANSPOSED = {"forward": "input", "input": "forward", "weight": "weight"}


@dataclass(frozen=True)
class Plan:
    """What a call would do, and why; str(plan) says it in words."""

    op: str
    pass_: str
    algorithm: str
    reason: str  # of the algorithm
    variant: str  # the ways in which the algorithm computes this, as "name (reason)" joined by "; "
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layout: str
    dtype: str
    flops: float  # of the definition, multiplications and additions
    workspace: int  # bytes of scratch memory
    isa: str
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.op} {self.pass_}: x {self.x_shape}, w {self.w_shape} -> y {self.output_shape}, "
            f"{self.layout}, {self.dtype}\n"
            f"  algorithm  {self.algorithm} ({self.reason})\n"
            f"  variant    {self.variant}\n"
            f"  arithmetic {self.flops / 1e6:.4g} MFLOP by the definition\n"
            f"  workspace  {self.workspace:,} bytes\n"
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
    output_padding: AxisArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout | None = None,
    algorithm: str = "auto",
    workspace_limit: int | None = None,
) -> Plan:
    """How a call of `op` with these shapes would be computed, without computing it.

    op is "conv1d", "conv2d", "conv3d" or "conv_transpose1d", ...2d, ...3d, pass_ the result or the
    gradient by the input or by the filters. The arrays are taken to be contiguous, of the layout,
    which is channels first unless given. A named algorithm that cannot serve the call, or not
    within workspace_limit bytes, is the ValueError that the call itself would raise.
    """
    if op not in _OPS:
        raise ValueError(f"op must be one of {', '.join(_OPS)}, got {op!r}")
    kind, axes = _OPS[op]
    if pass_ not in _TRANSPOSED:
        raise ValueError(f'pass_ must be "forward", "input" or "weight", got {pass_!r}')
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype must be float32 or float64, got {name}")
    if kind == "conv" and output_padding != 0:
        raise ValueError(f"output_padding is for transposed convolutions, got it for {op}")
    x, w = (_geometry.shape_of(s, n, axes) for s, n in ((x_shape, "x_shape"), (w_shape, "w_shape")))
    of_axes: str = layout or _geometry.LAYOUTS[axes][0]
    extra = () if kind == "conv" else (output_padding,)
    make: Any = _geometry.conv_geometry if kind == "conv" else _geometry.transposed_geometry
    geometry, y = make(axes, x, w, stride, padding, *extra, dilation, groups, of_axes)
    of_conv = pass_ if kind == "conv" else _TRANSPOSED[pass_]
    chosen, reason, variants, workspace = _core.plan_conv(
        geometry, of_conv, name == "float32", algorithm, workspace_limit
    )
    return Plan(
        op,
        pass_,
        chosen,
        reason,
        "; ".join(f"{variant} ({why})" for variant, why in variants),
        x,
        w,
        y,
        of_axes,
        name,
        geometry.flops,
        workspace,
        _core.isa(),
        _core.num_threads(),
    )
