"""Transposed convolution, the adjoint of convolution, and its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from .._backend import geometry as _geometry
from .._backend.dispatch import output, resolve
from .._backend.geometry import AxisArgument, PaddingArgument
from ._gradients import gradients
from ._ranks import other_ranks
from .conv import conv2d_grad_bias
from .options import Array, Layout, is_relu


def conv_transpose2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    output_padding: AxisArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout = "NCHW",
    activation: Literal["relu"] | None = None,
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """Convolve transposed: the input gradient of conv2d as an operation of its own.

    y is what conv2d_grad_input(x, w, y.shape) gives for the same stride, padding, dilation and
    groups, plus bias: each input is multiplied by a filter and added into y, stride apart. x:
    (N, C, H, W), or (N, H, W, C); w: (C, K/groups, R, S); bias: (K,). Returns y: (N, K, P, Q), or
    (N, P, Q, K); an axis of the output has
    (in - 1) * stride + dilation * (filter - 1) + 1 + output_padding - pads cells.

    Padding crops the output, as conv2d's would pad it; padding="same" gives in * stride cells.
    output_padding, less than stride or dilation, adds cells at the end of each axis (and is 0 with
    "same"). The module fastconv.ops says what the other keywords mean; activation="relu" applies
    max(y, 0) in the same pass. Source: Dumoulin and Visin, arXiv 1603.07285.
    """
    relu = is_relu(activation)
    backend, (x, w, bias) = resolve(x=x, w=w, bias=bias)
    geometry, shape = _geometry.transposed_geometry(
        _axes, x.shape, w.shape, stride, padding, output_padding, dilation, groups, layout
    )
    y = output(out, backend, shape, x.dtype, x=x, w=w, bias=bias)
    backend.kernels.conv_transpose_fprop(
        geometry, x, w, bias, y, relu, algorithm, precision, workspace_limit
    )
    return y


def conv_transpose2d_grad_input(
    dy: Array,
    w: Array,
    input_shape: Iterable[int],
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    output_padding: AxisArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(conv_transpose2d(x, w) * dy) by x: dx, of shape input_shape, in layout.

    dy has the shape of conv_transpose2d's result; the other arguments are those of the forward
    call. It is conv2d of dy.
    """
    backend, (dy, w) = resolve(dy=dy, w=w)
    x_shape = _geometry.shape_of(input_shape, "input_shape", _axes)
    geometry, _ = _geometry.transposed_geometry(
        _axes, x_shape, w.shape, stride, padding, output_padding, dilation, groups, layout
    )
    dx = output(out, backend, x_shape, dy.dtype, dy=dy, w=w)
    backend.kernels.conv_transpose_dgrad(geometry, dy, w, dx, algorithm, precision, workspace_limit)
    return dx


def conv_transpose2d_grad_weight(
    dy: Array,
    x: Array,
    weight_shape: Iterable[int],
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    output_padding: AxisArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(conv_transpose2d(x, w) * dy) by w: dw, of shape weight_shape.

    weight_shape is (C, K/groups, R, S); dy has the shape of conv_transpose2d's result; the other
    arguments are those of the forward call.
    """
    backend, (dy, x) = resolve(dy=dy, x=x)
    w_shape = _geometry.shape_of(weight_shape, "weight_shape", _axes)
    geometry, _ = _geometry.transposed_geometry(
        _axes, x.shape, w_shape, stride, padding, output_padding, dilation, groups, layout
    )
    dw = output(out, backend, w_shape, dy.dtype, dy=dy, x=x)
    backend.kernels.conv_transpose_wgrad(geometry, dy, x, dw, algorithm, precision, workspace_limit)
    return dw


def conv_transpose2d_grad_bias(
    dy: Array, *, layout: Layout = "NCHW", out: Array | None = None, _axes: int = 2
) -> Array:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return conv2d_grad_bias(dy, layout=layout, out=out, _axes=_axes)


def conv_transpose2d_grad(
    dy: Array,
    x: Array,
    w: Array,
    *,
    needs: Iterable[str] = ("input", "weight", "bias"),
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    output_padding: AxisArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: tuple[Array | None, Array | None, Array | None] = (None, None, None),
    _axes: int = 2,
) -> tuple[Array | None, Array | None, Array | None]:
    """All gradients of sum((conv_transpose2d(x, w) + bias) * dy).

    Returns (dx, dw, db), None where not in needs.
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
        "groups": groups,
        "layout": layout,
        "algorithm": algorithm,
        "precision": precision,
        "workspace_limit": workspace_limit,
        "_axes": _axes,
    }
    ops = conv_transpose2d_grad_input, conv_transpose2d_grad_weight, conv_transpose2d_grad_bias
    return gradients(ops, dy, x, w, needs, out, options)


conv_transpose1d, conv_transpose3d = other_ranks(conv_transpose2d)
conv_transpose1d_grad_input, conv_transpose3d_grad_input = other_ranks(conv_transpose2d_grad_input)
conv_transpose1d_grad_weight, conv_transpose3d_grad_weight = other_ranks(
    conv_transpose2d_grad_weight
)
conv_transpose1d_grad_bias, conv_transpose3d_grad_bias = other_ranks(conv_transpose2d_grad_bias)
conv_transpose1d_grad, conv_transpose3d_grad = other_ranks(conv_transpose2d_grad)
