"""Convolution and its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from .._backend.dispatch import output, resolve
from .._backend.geometry import shape_of
from .._checks import is_relu
from ._gradients import gradients
from .options import (
    A,
    ConvOptions,
    ForwardOptions,
    Images,
    Lines,
    Options,
    Three,
    Volumes,
    channel_axis,
    conv_call,
    listing,
    plain_options,
)


def _forward(axes: int, x: A, w: A, bias: A | None, options: ForwardOptions[Any, A]) -> A:
    relu = is_relu(options.pop("activation", None))
    backend, (x, w, bias) = resolve("x, w, bias", x, w, bias)
    geometry, shape, algorithm, precision, limit, out = conv_call(axes, x.shape, w.shape, **options)
    y: A = output(out, backend, shape, x.dtype, "x, w, bias", x, w, bias)
    backend.kernels.conv_fprop(geometry, x, w, bias, y, relu, algorithm, precision, limit)
    return y


def _grad_input(
    axes: int, dy: A, w: A, input_shape: Iterable[int], options: ConvOptions[Any, A]
) -> A:
    backend, (dy, w) = resolve("dy, w", dy, w)
    x_shape = shape_of(input_shape, "input_shape", axes)
    geometry, _, algorithm, precision, limit, out = conv_call(axes, x_shape, w.shape, **options)
    dx: A = output(out, backend, x_shape, dy.dtype, "dy, w", dy, w)
    backend.kernels.conv_dgrad(geometry, dy, w, dx, algorithm, precision, limit)
    return dx


def _grad_weight(
    axes: int, dy: A, x: A, weight_shape: Iterable[int], options: ConvOptions[Any, A]
) -> A:
    backend, (dy, x) = resolve("dy, x", dy, x)
    w_shape = shape_of(weight_shape, "weight_shape", axes)
    geometry, _, algorithm, precision, limit, out = conv_call(axes, x.shape, w_shape, **options)
    dw: A = output(out, backend, w_shape, dy.dtype, "dy, x", dy, x)
    backend.kernels.conv_wgrad(geometry, dy, x, dw, algorithm, precision, limit)
    return dw


def _grad_bias(axes: int, dy: A, options: Options[Any, A]) -> A:
    """The bias's gradient, of transposed convolutions too."""
    backend, (dy,) = resolve("dy", dy)
    layout, out = plain_options(axes, **options)
    channels = channel_axis(dy, layout, axes)
    db: A = output(out, backend, (dy.shape[channels],), dy.dtype, "dy", dy)
    backend.kernels.conv_bgrad(dy, db, channels == -1)
    return db


@listing(1, conv_call, activation=None)
def conv1d(x: A, w: A, bias: A | None = None, **options: Unpack[ForwardOptions[Lines, A]]) -> A:
    """Convolve lines with filters (cross-correlation).

    y[n, k, q] = bias[k] + sum over c, s of x[n, c, q * stride + s * dilation - pad] * w[k, c, s]

    x: (N, C, W), or (N, W, C); w: (K, C/groups, S); bias: (K,). activation="relu" applies max(y, 0)
    in the same pass. Returns y: (N, K, Q), or (N, Q, K), of
    floor((in + pads - dilation * (filter - 1) - 1) / stride) + 1 cells. The module fastconv.ops
    says what the other keywords mean.
    """
    return _forward(1, x, w, bias, options)


@listing(2, conv_call, activation=None)
def conv2d(x: A, w: A, bias: A | None = None, **options: Unpack[ForwardOptions[Images, A]]) -> A:
    """Convolve images with filters (cross-correlation, as in every deep-learning library).

    y[n, k, p, q] = bias[k] + sum over c, r, s of
    x[n, c, (p, q) * stride + (r, s) * dilation - pad] * w[k, c, r, s]

    x: (N, C, H, W), or (N, H, W, C); w: (K, C/groups, R, S); bias: (K,). activation="relu" applies
    max(y, 0) in the same pass. Returns y: (N, K, P, Q), or (N, P, Q, K); an axis of the output has
    floor((in + pads - dilation * (filter - 1) - 1) / stride) + 1 cells. The module fastconv.ops
    says what the other keywords mean. Source: Dumoulin and Visin, arXiv 1603.07285.
    """
    return _forward(2, x, w, bias, options)


@listing(3, conv_call, activation=None)
def conv3d(x: A, w: A, bias: A | None = None, **options: Unpack[ForwardOptions[Volumes, A]]) -> A:
    """Convolve volumes with filters (cross-correlation).

    y[n, k, z, p, q] = bias[k] + sum over c, t, r, s of
    x[n, c, (z, p, q) * stride + (t, r, s) * dilation - pad] * w[k, c, t, r, s]

    x: (N, C, D, H, W), or (N, D, H, W, C); w: (K, C/groups, T, R, S); bias: (K,).
    activation="relu" applies max(y, 0) in the same pass. Returns y: (N, K, Z, P, Q), or
    (N, Z, P, Q, K); an axis of the output has
    floor((in + pads - dilation * (filter - 1) - 1) / stride) + 1 cells. The module fastconv.ops
    says what the other keywords mean.
    """
    return _forward(3, x, w, bias, options)


@listing(1, conv_call)
def conv1d_grad_input(
    dy: A, w: A, input_shape: Iterable[int], **options: Unpack[ConvOptions[Lines, A]]
) -> A:
    """The gradient of sum(conv1d(x, w) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad_input(1, dy, w, input_shape, options)


@listing(2, conv_call)
def conv2d_grad_input(
    dy: A, w: A, input_shape: Iterable[int], **options: Unpack[ConvOptions[Images, A]]
) -> A:
    """The gradient of sum(conv2d(x, w) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad_input(2, dy, w, input_shape, options)


@listing(3, conv_call)
def conv3d_grad_input(
    dy: A, w: A, input_shape: Iterable[int], **options: Unpack[ConvOptions[Volumes, A]]
) -> A:
    """The gradient of sum(conv3d(x, w) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad_input(3, dy, w, input_shape, options)


@listing(1, conv_call)
def conv1d_grad_weight(
    dy: A, x: A, weight_shape: Iterable[int], **options: Unpack[ConvOptions[Lines, A]]
) -> A:
    """The gradient of sum(conv1d(x, w) * dy) by w: dw, of shape weight_shape."""
    return _grad_weight(1, dy, x, weight_shape, options)


@listing(2, conv_call)
def conv2d_grad_weight(
    dy: A, x: A, weight_shape: Iterable[int], **options: Unpack[ConvOptions[Images, A]]
) -> A:
    """The gradient of sum(conv2d(x, w) * dy) by w: dw, of shape weight_shape."""
    return _grad_weight(2, dy, x, weight_shape, options)


@listing(3, conv_call)
def conv3d_grad_weight(
    dy: A, x: A, weight_shape: Iterable[int], **options: Unpack[ConvOptions[Volumes, A]]
) -> A:
    """The gradient of sum(conv3d(x, w) * dy) by w: dw, of shape weight_shape."""
    return _grad_weight(3, dy, x, weight_shape, options)


@listing(1, plain_options)
def conv1d_grad_bias(dy: A, **options: Unpack[Options[Lines, A]]) -> A:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return _grad_bias(1, dy, options)


@listing(2, plain_options)
def conv2d_grad_bias(dy: A, **options: Unpack[Options[Images, A]]) -> A:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return _grad_bias(2, dy, options)


@listing(3, plain_options)
def conv3d_grad_bias(dy: A, **options: Unpack[Options[Volumes, A]]) -> A:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return _grad_bias(3, dy, options)


_ALL = ("input", "weight", "bias")


@listing(1, conv_call, out=(None, None, None))
def conv1d_grad(
    dy: A,
    x: A,
    w: A,
    *,
    needs: Iterable[str] = _ALL,
    **options: Unpack[ConvOptions[Lines, Three[A]]],
) -> Three[A]:
    """All gradients of sum((conv1d(x, w) + bias) * dy): (dx, dw, db), None where not in needs."""
    return gradients(1, False, dy, x, w, needs, options)


@listing(2, conv_call, out=(None, None, None))
def conv2d_grad(
    dy: A,
    x: A,
    w: A,
    *,
    needs: Iterable[str] = _ALL,
    **options: Unpack[ConvOptions[Images, Three[A]]],
) -> Three[A]:
    """All gradients of sum((conv2d(x, w) + bias) * dy): (dx, dw, db), None where not in needs."""
    return gradients(2, False, dy, x, w, needs, options)


@listing(3, conv_call, out=(None, None, None))
def conv3d_grad(
    dy: A,
    x: A,
    w: A,
    *,
    needs: Iterable[str] = _ALL,
    **options: Unpack[ConvOptions[Volumes, Three[A]]],
) -> Three[A]:
    """All gradients of sum((conv3d(x, w) + bias) * dy): (dx, dw, db), None where not in needs."""
    return gradients(3, False, dy, x, w, needs, options)
