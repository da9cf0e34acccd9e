"""Transposed convolution, the adjoint of convolution, and its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from .._backend.dispatch import output, resolve
from .._backend.geometry import shape_of
from .._checks import is_relu
from ._gradients import gradients
from .conv import _ALL, _grad_bias
from .options import (
    A,
    Images,
    Lines,
    Options,
    Three,
    TransposedForwardOptions,
    TransposedOptions,
    Volumes,
    conv_call,
    listing,
    plain_options,
    transposed_call,
)


def _forward(axes: int, x: A, w: A, bias: A | None, options: TransposedForwardOptions[Any, A]) -> A:
    relu = is_relu(options.pop("activation", None))
    backend, (x, w, bias) = resolve("x, w, bias", x, w, bias)
    geometry, shape, algorithm, precision, limit, out = transposed_call(
        axes, x.shape, w.shape, **options
    )
    y: A = output(out, backend, shape, x.dtype, "x, w, bias", x, w, bias)
    backend.kernels.conv_transpose_fprop(geometry, x, w, bias, y, relu, algorithm, precision, limit)
    return y


def _grad_input(
    axes: int, dy: A, w: A, input_shape: Iterable[int], options: TransposedOptions[Any, A]
) -> A:
    backend, (dy, w) = resolve("dy, w", dy, w)
    x_shape = shape_of(input_shape, "input_shape", axes)
    geometry, _, algorithm, precision, limit, out = transposed_call(
        axes, x_shape, w.shape, **options
    )
    dx: A = output(out, backend, x_shape, dy.dtype, "dy, w", dy, w)
    backend.kernels.conv_transpose_dgrad(geometry, dy, w, dx, algorithm, precision, limit)
    return dx


def _grad_weight(
    axes: int, dy: A, x: A, weight_shape: Iterable[int], options: TransposedOptions[Any, A]
) -> A:
    backend, (dy, x) = resolve("dy, x", dy, x)
    w_shape = shape_of(weight_shape, "weight_shape", axes)
    geometry, _, algorithm, precision, limit, out = transposed_call(
        axes, x.shape, w_shape, **options
    )
    dw: A = output(out, backend, w_shape, dy.dtype, "dy, x", dy, x)
    backend.kernels.conv_transpose_wgrad(geometry, dy, x, dw, algorithm, precision, limit)
    return dw


@listing(1, transposed_call, conv_call, activation=None)
def conv_transpose1d(
    x: A, w: A, bias: A | None = None, **options: Unpack[TransposedForwardOptions[Lines, A]]
) -> A:
    """Convolve lines transposed: the input gradient of conv1d as an operation of its own.

    y is what conv1d_grad_input(x, w, y.shape) gives for the same stride, padding, dilation and
    groups, plus bias. x: (N, C, W), or (N, W, C); w: (C, K/groups, S); bias: (K,). Returns y:
    (N, K, Q), or (N, Q, K), with
    (in - 1) * stride + dilation * (filter - 1) + 1 + output_padding - pads cells.

    Padding crops the output, as conv1d's would pad it; padding="same" gives in * stride cells.
    output_padding, less than stride or dilation, adds cells at the end (and is 0 with "same").
    """
    return _forward(1, x, w, bias, options)


@listing(2, transposed_call, conv_call, activation=None)
def conv_transpose2d(
    x: A, w: A, bias: A | None = None, **options: Unpack[TransposedForwardOptions[Images, A]]
) -> A:
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
    return _forward(2, x, w, bias, options)


@listing(3, transposed_call, conv_call, activation=None)
def conv_transpose3d(
    x: A, w: A, bias: A | None = None, **options: Unpack[TransposedForwardOptions[Volumes, A]]
) -> A:
    """Convolve volumes transposed: the input gradient of conv3d as an operation of its own.

    y is what conv3d_grad_input(x, w, y.shape) gives for the same stride, padding, dilation and
    groups, plus bias. x: (N, C, D, H, W), or (N, D, H, W, C); w: (C, K/groups, T, R, S); bias:
    (K,). Returns y: (N, K, Z, P, Q), or (N, Z, P, Q, K); an axis of the output has
    (in - 1) * stride + dilation * (filter - 1) + 1 + output_padding - pads cells.

    Padding crops the output, as conv3d's would pad it; padding="same" gives in * stride cells.
    output_padding, less than stride or dilation, adds cells at the end of each axis (and is 0 with
    "same").
    """
    return _forward(3, x, w, bias, options)


@listing(1, transposed_call, conv_call)
def conv_transpose1d_grad_input(
    dy: A, w: A, input_shape: Iterable[int], **options: Unpack[TransposedOptions[Lines, A]]
) -> A:
    """The gradient of sum(conv_transpose1d(x, w) * dy) by x: dx, of input_shape, in layout."""
    return _grad_input(1, dy, w, input_shape, options)


@listing(2, transposed_call, conv_call)
def conv_transpose2d_grad_input(
    dy: A, w: A, input_shape: Iterable[int], **options: Unpack[TransposedOptions[Images, A]]
) -> A:
    """The gradient of sum(conv_transpose2d(x, w) * dy) by x: dx, of input_shape, in layout."""
    return _grad_input(2, dy, w, input_shape, options)


@listing(3, transposed_call, conv_call)
def conv_transpose3d_grad_input(
    dy: A, w: A, input_shape: Iterable[int], **options: Unpack[TransposedOptions[Volumes, A]]
) -> A:
    """The gradient of sum(conv_transpose3d(x, w) * dy) by x: dx, of input_shape, in layout."""
    return _grad_input(3, dy, w, input_shape, options)


@listing(1, transposed_call, conv_call)
def conv_transpose1d_grad_weight(
    dy: A, x: A, weight_shape: Iterable[int], **options: Unpack[TransposedOptions[Lines, A]]
) -> A:
    """The gradient of sum(conv_transpose1d(x, w) * dy) by w: dw, of shape weight_shape."""
    return _grad_weight(1, dy, x, weight_shape, options)


@listing(2, transposed_call, conv_call)
def conv_transpose2d_grad_weight(
    dy: A, x: A, weight_shape: Iterable[int], **options: Unpack[TransposedOptions[Images, A]]
) -> A:
    """The gradient of sum(conv_transpose2d(x, w) * dy) by w: dw, of shape weight_shape."""
    return _grad_weight(2, dy, x, weight_shape, options)


@listing(3, transposed_call, conv_call)
def conv_transpose3d_grad_weight(
    dy: A, x: A, weight_shape: Iterable[int], **options: Unpack[TransposedOptions[Volumes, A]]
) -> A:
    """The gradient of sum(conv_transpose3d(x, w) * dy) by w: dw, of shape weight_shape."""
    return _grad_weight(3, dy, x, weight_shape, options)


@listing(1, plain_options)
def conv_transpose1d_grad_bias(dy: A, **options: Unpack[Options[Lines, A]]) -> A:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return _grad_bias(1, dy, options)


@listing(2, plain_options)
def conv_transpose2d_grad_bias(dy: A, **options: Unpack[Options[Images, A]]) -> A:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return _grad_bias(2, dy, options)


@listing(3, plain_options)
def conv_transpose3d_grad_bias(dy: A, **options: Unpack[Options[Volumes, A]]) -> A:
    """The gradient of sum((y + bias) * dy) by bias: dy summed over all axes but K. Returns (K,)."""
    return _grad_bias(3, dy, options)


@listing(1, transposed_call, conv_call, out=(None, None, None))
def conv_transpose1d_grad(
    dy: A,
    x: A,
    w: A,
    *,
    needs: Iterable[str] = _ALL,
    **options: Unpack[TransposedOptions[Lines, Three[A]]],
) -> Three[A]:
    """All gradients of sum((conv_transpose1d(x, w) + bias) * dy).

    Returns (dx, dw, db), None where not in needs.
    """
    return gradients(1, True, dy, x, w, needs, options)


@listing(2, transposed_call, conv_call, out=(None, None, None))
def conv_transpose2d_grad(
    dy: A,
    x: A,
    w: A,
    *,
    needs: Iterable[str] = _ALL,
    **options: Unpack[TransposedOptions[Images, Three[A]]],
) -> Three[A]:
    """All gradients of sum((conv_transpose2d(x, w) + bias) * dy).

    Returns (dx, dw, db), None where not in needs.
    """
    return gradients(2, True, dy, x, w, needs, options)


@listing(3, transposed_call, conv_call, out=(None, None, None))
def conv_transpose3d_grad(
    dy: A,
    x: A,
    w: A,
    *,
    needs: Iterable[str] = _ALL,
    **options: Unpack[TransposedOptions[Volumes, Three[A]]],
) -> Three[A]:
    """All gradients of sum((conv_transpose3d(x, w) + bias) * dy).

    Returns (dx, dw, db), None where not in needs.
    """
    return gradients(3, True, dy, x, w, needs, options)
