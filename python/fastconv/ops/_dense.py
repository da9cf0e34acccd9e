"""What the layers need beyond the public functions: a matrix product, sums, ReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._backend.dispatch import Backend, output, resolve
from .._checks import is_relu
from .options import A, Activation, Precision


def matmul(
    a: A,
    b: A,
    bias: A | None = None,
    *,
    activation: Activation = None,
    precision: Precision = "fp32",
    out: A | None = None,
) -> A:
    """a (m, k) times b (k, n), plus bias (n,), through the activation. Returns (m, n).

    precision is that of the convolutions.
    """
    relu = is_relu(activation)
    backend, (a, b, bias) = resolve("a, b, bias", a, b, bias)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"a and b must have 2 axes, got shapes {a.shape} and {b.shape}")
    c: A = output(out, backend, (a.shape[0], b.shape[1]), a.dtype, "a, b, bias", a, b, bias)
    backend.kernels.matmul(a, b, bias, c, relu, precision)
    return c


def column_sum(a: A, *, out: A | None = None) -> A:
    """The sum over the rows of a (m, n). Returns (n,)."""
    backend, (a,) = resolve("a", a)
    if a.ndim != 2:
        raise ValueError(f"a must have 2 axes, got shape {a.shape}")
    sums: A = output(out, backend, (a.shape[1],), a.dtype, "a", a)
    backend.kernels.column_sum(a, sums)
    return sums


def relu(x: A, *, out: A | None = None) -> A:
    """max(x, 0); NaN stays NaN. `out` may be x."""
    backend, (x,) = resolve("x", x)
    y: A = _elementwise(backend.kernels.relu_fprop, backend, out, x, "x", x)
    return y


def relu_grad(dy: A, y: A, *, out: A | None = None) -> A:
    """dy where y > 0, else 0. `out` may be dy or y."""
    backend, (dy, y) = resolve("dy, y", dy, y)
    dx: A = _elementwise(backend.kernels.relu_dgrad, backend, out, y, "dy, y", dy, y)
    return dx


def add(a: A, b: A, *, activation: Activation = None, out: A | None = None) -> A:
    """activation(a + b), of one shape. `out` may be a or b."""
    relu = is_relu(activation)
    backend, (a, b) = resolve("a, b", a, b)
    kernel = backend.kernels.add
    y: A = _elementwise(lambda a, b, y: kernel(a, b, y, relu), backend, out, a, "a, b", a, b)
    return y


def _elementwise(
    kernel: Callable[..., None], backend: Backend, out: Any, like: Any, names: str, *arrays: Any
) -> Any:
    """What the kernel makes of the inputs, in `out` or a new array whose memory lies as `like`'s.

    `out` may be an input, cell for cell, and shares no memory with it otherwise. The kernels walk
    C-contiguous arrays: they are shown the axes by falling strides.
    """
    if out is not None:
        for name, a in zip(names.split(", "), arrays, strict=True):
            if not backend.same_cells(out, a):
                output(out, backend, like.shape, like.dtype, name, a)
    lead = like if out is None else out
    order = None
    if not lead.flags.c_contiguous and all(a.shape == lead.shape for a in arrays):
        order = sorted(range(lead.ndim), key=lambda axis: -abs(lead.strides[axis]))
        arrays = tuple(a.transpose(order) for a in arrays)
    arrays = tuple(map(backend.xp.ascontiguousarray, arrays))
    if out is not None:
        kernel(*arrays, out if order is None else out.transpose(order))
        return out
    y = backend.xp.empty(arrays[0].shape, arrays[0].dtype)
    kernel(*arrays, y)
    return y if order is None else y.transpose(sorted(range(y.ndim), key=order.__getitem__))
