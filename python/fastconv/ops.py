"""Convolution and pooling on arrays, forward and backward: each function is one call of a kernel.

Letters: x[N, C, H, W], w[K, C/groups, R, S], y[N, K, P, Q]; dx, dw, db, dy are gradients. With
``layout="NHWC"`` x and y have their channels last; w keeps its shape. The arguments that several
functions share:

stride, dilation
    An int or one per spatial axis.
padding
    An int, one per axis, one (before, after) pair per axis, "valid" (none), "same" (the output has
    ceil(in / stride) cells, an odd pad goes after, as in TensorFlow, Keras and JAX) or
    "same_lower" (before, as in ONNX).
groups
    C and K fall into so many groups that do not mix; groups = C is a depthwise convolution.
algorithm
    "auto"; "implicit" (one matrix product that gathers the patches while packing), "winograd" (3x3
    filters without stride, not for weight gradients), "direct" (one channel a group, not for weight
    gradients) or "im2col" (patches stored, multiplied by BLAS). Winograd rounds more: its error is
    up to about 1e-5 of the largest output in float32, and a NaN or Inf reaches a whole tile of 4x4
    outputs. The environment variable FASTCONV_ALGORITHM is what "auto" prefers;
    FASTCONV_WINOGRAD=0 keeps Winograd out of "auto".
precision
    "fp32": never less than the arrays' own.
workspace_limit
    The scratch memory a call may use, in bytes: it runs on fewer threads to stay within.
out
    Where to write the result: the exact shape and dtype, any strides, no memory shared with an
    input. Without it the result is a new array.

Arrays are float32 or float64, all of one call the same; they may have any strides. TypeError and
ValueError name the argument, what came and what was expected; nothing has been written then.
Results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import _core, _geometry
from ._dispatch import Backend, output, resolve
from ._geometry import AxisArgument, PaddingArgument

Layout2d = Literal["NCHW", "NHWC"]
Array = Any  # numpy.ndarray, or anything with __dlpack__


def _is_relu(activation: str | None) -> bool:
    if activation not in (None, "relu"):
        raise ValueError(f'activation must be None or "relu", got {activation!r}')
    return activation is not None


def _check_precision(precision: str) -> None:
    if precision == "tf32":
        raise ValueError('precision "tf32" is for GPU arrays: on the CPU use "fp32"')
    if precision != "fp32":
        raise ValueError(f'precision must be "fp32", got {precision!r}')


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout2d = "NCHW",
    activation: Literal["relu"] | None = None,
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve images with filters (cross-correlation, as in every deep-learning library).

    y[n, k, p, q] = bias[k] + sum over c, r, s of
    x[n, c, p * stride + r * dilation - pad, q * stride + s * dilation - pad] * w[k, c, r, s]

    x: (N, C, H, W), or (N, H, W, C); w: (K, C/groups, R, S); bias: (K,). activation="relu" applies
    max(y, 0) in the same pass. Returns y: (N, K, P, Q), or (N, P, Q, K), with
    P = floor((H + pads - dilation * (R - 1) - 1) / stride) + 1. The module says what the other
    keywords mean. Source: Dumoulin and Visin, arXiv 1603.07285.
    """
    _check_precision(precision)
    relu = _is_relu(activation)
    backend, (x, w, bias) = resolve(x=x, w=w, bias=bias)
    geometry, shape = _geometry.conv_geometry(
        2, x.shape, w.shape, stride, padding, dilation, groups, layout
    )
    y = output(out, backend, shape, x.dtype, x=x, w=w, bias=bias)
    backend.kernels.conv_fprop(geometry, x, w, bias, y, relu, algorithm, workspace_limit)
    return y


def conv2d_grad_input(
    dy: Array,
    w: Array,
    input_shape: Iterable[int],
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout2d = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """The gradient of sum(conv2d(x, w) * dy) by x: dx, of shape input_shape (that of x, in layout).

    dy has the shape of conv2d's result; the other arguments are those of the forward call.
    """
    _check_precision(precision)
    backend, (dy, w) = resolve(dy=dy, w=w)
    x_shape = _geometry.shape_of(input_shape, "input_shape", 2)
    geometry, _ = _geometry.conv_geometry(
        2, x_shape, w.shape, stride, padding, dilation, groups, layout
    )
    dx = output(out, backend, x_shape, dy.dtype, dy=dy, w=w)
    backend.kernels.conv_dgrad(geometry, dy, w, dx, algorithm, workspace_limit)
    return dx


def conv2d_grad_weight(
    dy: Array,
    x: Array,
    weight_shape: Iterable[int],
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout2d = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """The gradient of sum(conv2d(x, w) * dy) by w: dw, of shape weight_shape (K, C/groups, R, S).

    dy has the shape of conv2d's result; the other arguments are those of the forward call. The sum
    over the batch is always taken in the same order.
    """
    _check_precision(precision)
    backend, (dy, x) = resolve(dy=dy, x=x)
    w_shape = _geometry.shape_of(weight_shape, "weight_shape", 2)
    geometry, _ = _geometry.conv_geometry(
        2, x.shape, w_shape, stride, padding, dilation, groups, layout
    )
    dw = output(out, backend, w_shape, dy.dtype, dy=dy, x=x)
    backend.kernels.conv_wgrad(geometry, dy, x, dw, algorithm, workspace_limit)
    return dw


def conv2d_grad_bias(dy: Array, *, layout: Layout2d = "NCHW", out: Array | None = None) -> Array:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    backend, (dy,) = resolve(dy=dy)
    channels_last = _geometry.check_layout(layout, 2)
    if dy.ndim != 4:
        raise ValueError(f"dy must have 4 axes ({layout}), got shape {dy.shape}")
    db = output(out, backend, (dy.shape[3 if channels_last else 1],), dy.dtype, dy=dy)
    backend.kernels.conv_bgrad(dy, db, channels_last)
    return db


def conv2d_grad(
    dy: Array,
    x: Array,
    w: Array,
    *,
    needs: Iterable[str] = ("input", "weight", "bias"),
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout2d = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: tuple[Array | None, Array | None, Array | None] = (None, None, None),
) -> tuple[Array | None, Array | None, Array | None]:
    """All gradients of sum((conv2d(x, w) + bias) * dy): (dx, dw, db), None where not in needs."""
    known = {"input", "weight", "bias"}
    wanted = {needs} if isinstance(needs, str) or not isinstance(needs, Iterable) else set(needs)
    if not wanted <= known:
        raise ValueError(f'needs must be of "input", "weight" and "bias", got {needs!r}')
    backend, (dy, x, w) = resolve(dy=dy, x=x, w=w)
    _check_outs(out, backend, dy=dy, x=x, w=w)
    keywords: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "layout": layout,
        "algorithm": algorithm,
        "precision": precision,
        "workspace_limit": workspace_limit,
    }
    dx = dw = db = None
    if "input" in wanted:
        dx = conv2d_grad_input(dy, w, x.shape, **keywords, out=out[0])
    if "weight" in wanted:
        dw = conv2d_grad_weight(dy, x, w.shape, **keywords, out=out[1])
    if "bias" in wanted:
        db = conv2d_grad_bias(dy, layout=layout, out=out[2])
    return dx, dw, db


def _check_outs(out: Any, backend: Backend, **operands: Array) -> None:
    """Before the first of several results is written: each `out` fits and overlaps no other."""
    if not isinstance(out, tuple | list) or len(out) != 3:
        raise ValueError(
            f"out must be three arrays or None, (dx, dw, db), got {type(out).__name__}"
        )
    dy, x, w = operands.values()
    shapes = (x.shape, w.shape, w.shape[:1])
    for i, (array, shape) in enumerate(zip(out, shapes, strict=True)):
        if array is None:
            continue
        output(array, backend, shape, dy.dtype, **operands)
        for j in range(i):
            output(array, backend, shape, dy.dtype, **{f"out[{j}]": out[j]})
        if array.shape != shape or array.dtype != dy.dtype or not array.flags.writeable:
            raise ValueError(
                f"out[{i}] must be writable, of shape {shape} and dtype {dy.dtype}, "
                f"got shape {array.shape} and dtype {array.dtype}"
            )


def max_pool2d(
    x: Array,
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    ceil_mode: bool = False,
    layout: Layout2d = "NCHW",
    return_indices: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The maximum of each window. Returns y, or (y, indices) with return_indices.

    x: (N, C, H, W), or (N, H, W, C); stride is kernel_size by default; the padding, at most half
    the dilated window, is -inf. ceil_mode keeps a last window that starts inside the input or its
    leading padding. A NaN in the window is its maximum. indices, int64 and of y's shape, are
    h * W + w of the first maximum in row order (of the first NaN, if there is one) in either
    layout. A window of nothing but -inf gives -inf and its first cell; a window that dilation
    leaves without a cell gives -inf and -1.
    """
    backend, (x,) = resolve(x=x)
    geometry, shape = _geometry.pool_geometry(
        2, x.shape, kernel_size, stride, padding, dilation, ceil_mode, layout
    )
    y = output(out, backend, shape, x.dtype, x=x)
    indices = backend.xp.empty(shape, np.int64) if return_indices else None
    backend.kernels.max_pool_fprop(geometry, x, y, indices)
    return (y, indices) if return_indices else y


def max_pool2d_grad(
    dy: Array,
    indices: Array,
    input_shape: Iterable[int],
    *,
    layout: Layout2d = "NCHW",
    out: Array | None = None,
) -> Array:
    """The gradient of sum(max_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call: each must lie in [-1, H * W) (ValueError); -1 takes no
    gradient. Where windows overlap, their gradients add up.
    """
    backend, (dy, indices) = resolve(dy=dy, indices=indices)
    channels_last = _geometry.check_layout(layout, 2)
    x_shape = _geometry.shape_of(input_shape, "input_shape", 2)
    if dy.ndim != 4:
        raise ValueError(f"dy must have 4 axes ({layout}), got shape {dy.shape}")
    dx = output(out, backend, x_shape, dy.dtype, dy=dy, indices=indices)
    if dx.shape != x_shape:
        raise ValueError(f"out has shape {dx.shape}, expected {x_shape} (input_shape)")
    backend.kernels.max_pool_dgrad(dy, indices, dx, channels_last)
    return dx


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
    layout: Layout2d = "NCHW",
    algorithm: str = "auto",
) -> Plan:
    """How a call of `op` ("conv2d") with these shapes would be computed, without computing it."""
    if op != "conv2d":
        raise ValueError(f'op must be "conv2d", got {op!r}')
    if pass_ not in ("forward", "input", "weight"):
        raise ValueError(f'pass_ must be "forward", "input" or "weight", got {pass_!r}')
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype must be float32 or float64, got {name}")
    x = _geometry.shape_of(x_shape, "x_shape", 2)
    w = _geometry.shape_of(w_shape, "w_shape", 2)
    geometry, y = _geometry.conv_geometry(2, x, w, stride, padding, dilation, groups, layout)
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


# What the layers need beyond the public functions.


def matmul(
    a: Array,
    b: Array,
    bias: Array | None = None,
    *,
    activation: Literal["relu"] | None = None,
    out: Array | None = None,
) -> Array:
    """a (m, k) times b (k, n), plus bias (n,), through the activation. Returns (m, n)."""
    relu = _is_relu(activation)
    backend, (a, b, bias) = resolve(a=a, b=b, bias=bias)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"a and b must have 2 axes, got shapes {a.shape} and {b.shape}")
    c = output(out, backend, (a.shape[0], b.shape[1]), a.dtype, a=a, b=b, bias=bias)
    backend.kernels.matmul(a, b, bias, c, relu)
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


def _elementwise_output(out: Array | None, backend: Backend, like: Array) -> Array:
    return backend.xp.empty(like.shape, like.dtype) if out is None else out
