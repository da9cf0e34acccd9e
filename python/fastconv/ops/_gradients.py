"""All gradients of a convolution, transposed or not, from the functions for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .._backend.dispatch import Backend, output, resolve
from .._backend.geometry import LAYOUTS
from .options import A, ConvOptions, Three, channel_axis


def gradients(
    axes: int,
    ops: tuple[Callable[..., A], Callable[..., A], Callable[..., A]],
    dy: A,
    x: A,
    w: A,
    needs: Iterable[str],
    options: ConvOptions[Any, Three[A]],
) -> Three[A]:
    """(dx, dw, db) of the ops for each, None where not in needs; every `out` is checked first."""
    known = {"input", "weight", "bias"}
    wanted = {needs} if isinstance(needs, str) or not isinstance(needs, Iterable) else set(needs)
    if not wanted <= known:
        raise ValueError(f'needs must be of "input", "weight" and "bias", got {needs!r}')
    backend, (dy, x, w) = resolve("dy, x, w", dy, x, w)
    out: Any = options.pop("out", (None, None, None))
    layout = options.get("layout", LAYOUTS[axes][0])
    channels = dy.shape[channel_axis(dy, layout, axes)]
    _check_outs(out, (x.shape, w.shape, (channels,)), backend, dy, x, w)
    grad_input, grad_weight, grad_bias = ops
    return (
        grad_input(dy, w, x.shape, **options, out=out[0]) if "input" in wanted else None,
        grad_weight(dy, x, w.shape, **options, out=out[1]) if "weight" in wanted else None,
        grad_bias(dy, layout=layout, out=out[2]) if "bias" in wanted else None,
    )


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
