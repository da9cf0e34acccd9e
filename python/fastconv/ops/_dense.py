"""What the layers need beyond the public functions: a matrix product, sums, ReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .._backend.dispatch import Backend, output, resolve
from .options import Array, is_relu


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
    return _elementwise(backend.kernels.relu_fprop, backend, out, x, x)


def relu_grad(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, else 0. `out` may be dy."""
    backend, (dy, y) = resolve(dy=dy, y=y)
    return _elementwise(backend.kernels.relu_dgrad, backend, out, y, dy, y)


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
    kernel = backend.kernels.add
    return _elementwise(lambda a, b, y: kernel(a, b, y, relu), backend, out, a, a, b)


def _elementwise(
    kernel: Callable[..., None], backend: Backend, out: Array | None, like: Array, *inputs: Array
) -> Array:
    """What the kernel makes of the inputs, in `out` or a new array whose memory lies as `like`'s.

    The kernels walk C-contiguous arrays: they are shown the axes by falling strides.
    """
    lead = like if out is None else out
    order = None
    if not lead.flags.c_contiguous and all(a.shape == lead.shape for a in inputs):
        order = sorted(range(lead.ndim), key=lambda axis: -abs(lead.strides[axis]))
        inputs = tuple(a.transpose(order) for a in inputs)
    inputs = tuple(map(backend.xp.ascontiguousarray, inputs))
    if out is not None:
        kernel(*inputs, out if order is None else out.transpose(order))
        return out
    y = backend.xp.empty(inputs[0].shape, inputs[0].dtype)
    kernel(*inputs, y)
    return y if order is None else y.transpose(sorted(range(y.ndim), key=order.__getitem__))
