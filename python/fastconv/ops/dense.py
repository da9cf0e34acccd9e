"""What the layers need beyond the public functions: a matrix product, sums, ReLU."""

from __future__ import annotations

from typing import Literal

from .._dispatch import Backend, output, resolve
from ._arguments import Array, is_relu


def matmul(
    a: Array,
    b: Array,
    bias: Array | None = None,
    *,
    activation: Literal["relu"] | None = None,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """a (m, k) times b (k, n), plus bias (n,), through the activation. Returns (m, n).

    precision is that of the convolutions.
    """
    relu = is_relu(activation)
    backend, (a, b, bias) = resolve(a=a, b=b, bias=bias)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"a and b must have 2 axes, got shapes {a.shape} and {b.shape}")
    c = output(out, backend, (a.shape[0], b.shape[1]), a.dtype, a=a, b=b, bias=bias)
    backend.kernels.matmul(a, b, bias, c, relu, precision)
    return c


def column_sum(a: Array, *, out: Array | None = None) -> Array:
    """The sum over the rows of a (m, n). Returns (n,)."""
    backend, (a,) = resolve(a=a)
    if a.ndim != 2:
        raise ValueError(f"a must have 2 axes, got shape {a.shape}")
    sums = output(out, backend, (a.shape[1],), a.dtype, a=a)
    backend.kernels.column_sum(a, sums)
    return sums


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0); NaN stays NaN. `out` may be x."""
    backend, (x,) = resolve(x=x)
    x = backend.xp.ascontiguousarray(x)
    y = _elementwise_output(out, backend, x)
    backend.kernels.relu(x, y)
    return y


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, else 0. `out` may be dy."""
    backend, (dy, y) = resolve(dy=dy, y=y)
    dy, y = backend.xp.ascontiguousarray(dy), backend.xp.ascontiguousarray(y)
    dx = _elementwise_output(out, backend, dy)
    backend.kernels.relu_grad(dy, y, dx)
    return dx


def add(
    a: Array,
    b: Array,
    *,
    activation: Literal["relu"] | None = None,
    out: Array | None = None,
) -> Array:
    """activation(a + b), of one shape."""
    relu = is_relu(activation)
    backend, (a, b) = resolve(a=a, b=b)
    a, b = backend.xp.ascontiguousarray(a), backend.xp.ascontiguousarray(b)
    y = _elementwise_output(out, backend, a)
    backend.kernels.add(a, b, y, relu)
    return y


def _elementwise_output(out: Array | None, backend: Backend, like: Array) -> Array:
    return backend.xp.empty(like.shape, like.dtype) if out is None else out
