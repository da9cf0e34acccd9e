"""Convolution and its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from .._backend import geometry as _geometry
from .._backend.dispatch import output, resolve
from .._backend.geometry import AxisArgument, PaddingArgument
from ._gradients import gradients
from ._ranks import other_ranks
from .options import Array, Layout, channel_axis, is_relu


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
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
    """Convolve images with filters (cross-correlation, as in every deep-learning library).

    y[n, k, p, q] = bias[k] + sum over c, r, s of
    x[n, c, (p, q) * stride + (r, s) * dilation - pad] * w[k, c, r, s]

    x: (N, C, H, W), or (N, H, W, C); w: (K, C/groups, R, S); bias: (K,). activation="relu" applies
    max(y, 0) in the same pass. Returns y: (N, K, P, Q), or (N, P, Q, K); an axis of the output has
    floor((in + pads - dilation * (filter - 1) - 1) / stride) + 1 cells. The module fastconv.ops
    says what the other keywords mean. Source: Dumoulin and Visin, arXiv 1603.07285.
    """
    relu = is_relu(activation)
    backend, (x, w, bias) = resolve(x=x, w=w, bias=bias)
    geometry, shape = _geometry.conv_geometry(
        _axes, x.shape, w.shape, stride, padding, dilation, groups, layout
    )
    y = output(out, backend, shape, x.dtype, x=x, w=w, bias=bias)
    backend.kernels.conv_fprop(geometry, x, w, bias, y, relu, algorithm, precision, workspace_limit)
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
    layout: Layout = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(conv2d(x, w) * dy) by x: dx, of shape input_shape (that of x, in layout).

    dy has the shape of conv2d's result; the other arguments are those of the forward call.
    """
    backend, (dy, w) = resolve(dy=dy, w=w)
    x_shape = _geometry.shape_of(input_shape, "input_shape", _axes)
    geometry, _ = _geometry.conv_geometry(
        _axes, x_shape, w.shape, stride, padding, dilation, groups, layout
    )
    dx = output(out, backend, x_shape, dy.dtype, dy=dy, w=w)
    backend.kernels.conv_dgrad(geometry, dy, w, dx, algorithm, precision, workspace_limit)
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
    layout: Layout = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(conv2d(x, w) * dy) by w: dw, of shape weight_shape (K, C/groups, R, S).

    dy has the shape of conv2d's result; the other arguments are those of the forward call. The sum
    over the batch is always taken in the same order.
    """
    backend, (dy, x) = resolve(dy=dy, x=x)
    w_shape = _geometry.shape_of(weight_shape, "weight_shape", _axes)
    geometry, _ = _geometry.conv_geometry(
        _axes, x.shape, w_shape, stride, padding, dilation, groups, layout
    )
    dw = output(out, backend, w_shape, dy.dtype, dy=dy, x=x)
    backend.kernels.conv_wgrad(geometry, dy, x, dw, algorithm, precision, workspace_limit)
    return dw


def conv2d_grad_bias(
    dy: Array, *, layout: Layout = "NCHW", out: Array | None = None, _axes: int = 2
) -> Array:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    backend, (dy,) = resolve(dy=dy)
    channels = channel_axis(dy, layout, _axes)
    db = output(out, backend, (dy.shape[channels],), dy.dtype, dy=dy)
    backend.kernels.conv_bgrad(dy, db, channels == -1)
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
    layout: Layout = "NCHW",
    algorithm: str = "auto",
    precision: str = "fp32",
    workspace_limit: int | None = None,
    out: tuple[Array | None, Array | None, Array | None] = (None, None, None),
    _axes: int = 2,
) -> tuple[Array | None, Array | None, Array | None]:
    """All gradients of sum((conv2d(x, w) + bias) * dy): (dx, dw, db), None where not in needs."""
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "layout": layout,
        "algorithm": algorithm,
        "precision": precision,
        "workspace_limit": workspace_limit,
        "_axes": _axes,
    }
    ops = conv2d_grad_input, conv2d_grad_weight, conv2d_grad_bias
    return gradients(ops, dy, x, w, needs, out, options)


conv1d, conv3d = other_ranks(conv2d)
conv1d_grad_input, conv3d_grad_input = other_ranks(conv2d_grad_input)
conv1d_grad_weight, conv3d_grad_weight = other_ranks(conv2d_grad_weight)
conv1d_grad_bias, conv3d_grad_bias = other_ranks(conv2d_grad_bias)
conv1d_grad, conv3d_grad = other_ranks(conv2d_grad)
