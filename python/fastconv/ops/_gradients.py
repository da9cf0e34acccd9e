"""All gradients of a convolution, transposed or not, in one call of the kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._backend.dispatch import Backend, output, resolve
from .._backend.geometry import LAYOUTS
from .options import A, ConvOptions, Three, channel_axis, conv_call, transposed_call


def gradients(
    axes: int,
    transposed: bool,
    dy: A,
    x: A,
    w: A,
    needs: Iterable[str],
    options: ConvOptions[Any, Three[A]],
) -> Three[A]:
    """(dx, dw, db) in one call, None where not in needs; nothing is written if it is refused."""
    known = {"input", "weight", "bias"}
    wanted = {needs} if isinstance(needs, str) or not isinstance(needs, Iterable) else set(needs)
    if not wanted <= known:
        raise ValueError(f'needs must be of "input", "weight" and "bias", got {needs!r}')
    backend, (dy, x, w) = resolve("dy, x, w", dy, x, w)
    outs: Any = options.pop("out", (None, None, None))
    channels = dy.shape[channel_axis(dy, options.get("layout", LAYOUTS[axes][0]), axes)]
    shapes = x.shape, w.shape, (channels,)
    _check_outs(outs, shapes, backend, dy, x, w)
    geometry, _, *how, _ = (transposed_call if transposed else conv_call)(
        axes, x.shape, w.shape, **options
    )
    dx, dw, db = (
        output(out, backend, shape, dy.dtype, "dy, x, w", dy, x, w) if name in wanted else None
        for out, shape, name in zip(outs, shapes, ("input", "weight", "bias"), strict=True)
    )
    kernels = backend.kernels
    (kernels.conv_transpose_grad if transposed else kernels.conv_grad)(
        geometry, dy, x, w, dx, dw, db, *how
    )
    return dx, dw, db


def _check_outs(
    out: Any, shapes: tuple[tuple[int, ...], ...], backend: Backend, *operands: Any
) -> None:
    """Before the first of several results is written: each `out` fits and overlaps no other."""
    if not isinstance(out, tuple | list) or len(out) != 3:
        raise ValueError(
            f"out must be three arrays or None, (dx, dw, db), got {type(out).__name__}"
        )
    dtype = operands[0].dtype
    for i, (array, shape) in enumerate(zip(out, shapes, strict=True)):
        if array is None:
            continue
        output(array, backend, shape, dtype, "dy, x, w", *operands)
        for j in range(i):
            output(array, backend, shape, dtype, f"out[{j}]", out[j])
        if array.shape != shape or array.dtype != dtype or not array.flags.writeable:
            raise ValueError(
                f"out[{i}] must be writable, of shape {shape} and dtype {dtype}, "
                f"got shape {array.shape} and dtype {array.dtype}"
            )
