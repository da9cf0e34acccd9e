"""Average and sum pooling over windows, adaptive windows and whole inputs, and the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Unpack

from .._backend.dispatch import output, resolve
from .._backend.geometry import AxisArgument, adaptive_geometry, shape_of
from .options import (
    A,
    AvgPoolOptions,
    Images,
    Lines,
    Options,
    PoolOptions,
    Volumes,
    avg_pool_call,
    channel_axis,
    listing,
    plain_options,
    sum_pool_call,
)


def _pool(call: Callable[..., Any], axes: int, x: A, kernel_size: AxisArgument, options: Any) -> A:
    """avg_pool or sum_pool, as `call` is avg_pool_call or sum_pool_call."""
    backend, (x,) = resolve("x", x)
    geometry, shape, divide, out = call(axes, x.shape, kernel_size, **options)
    y: A = output(out, backend, shape, x.dtype, "x", x)
    backend.kernels.avg_pool_fprop(geometry, x, y, *divide)
    return y


def _grad(
    call: Callable[..., Any],
    axes: int,
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    options: Any,
) -> A:
    backend, (dy,) = resolve("dy", dy)
    x_shape = shape_of(input_shape, "input_shape", axes)
    geometry, _, divide, out = call(axes, x_shape, kernel_size, **options)
    dx: A = output(out, backend, x_shape, dy.dtype, "dy", dy)
    backend.kernels.avg_pool_dgrad(geometry, dy, dx, *divide)
    return dx


def _adaptive(axes: int, x: A, output_size: AxisArgument, options: Options[Any, A]) -> A:
    backend, (x,) = resolve("x", x)
    layout, out = plain_options(axes, **options)
    geometry, shape = adaptive_geometry(axes, x.shape, output_size, layout)
    y: A = output(out, backend, shape, x.dtype, "x", x)
    backend.kernels.avg_pool_fprop(geometry, x, y, False, 0)
    return y


def _adaptive_grad(
    axes: int,
    dy: A,
    input_shape: Iterable[int],
    output_size: AxisArgument | None,
    options: Options[Any, A],
) -> A:
    """An output_size of None is that of dy."""
    backend, (dy,) = resolve("dy", dy)
    layout, out = plain_options(axes, **options)
    if output_size is None:
        channels_last = channel_axis(dy, layout, axes) == -1
        output_size = dy.shape[1:-1] if channels_last else dy.shape[2:]
    x_shape = shape_of(input_shape, "input_shape", axes)
    geometry, _ = adaptive_geometry(axes, x_shape, output_size, layout)
    dx: A = output(out, backend, x_shape, dy.dtype, "dy", dy)
    backend.kernels.avg_pool_dgrad(geometry, dy, dx, False, 0)
    return dx


@listing(1, avg_pool_call, sum_pool_call)
def avg_pool1d(x: A, kernel_size: AxisArgument, **options: Unpack[AvgPoolOptions[Lines, A]]) -> A:
    """The average of each window.

    x: (N, C, W), or (N, W, C); stride is kernel_size by default; the padding is zero.
    ceil_mode keeps a last window that starts inside the input or its leading padding. A sum is
    divided by the cells of the window within the padded input (cells that only ceil_mode adds do
    not count); with count_include_pad=False by those within the input, and is 0 if there are none;
    divisor_override, an int but 0, replaces both. Returns y: (N, C, Q), or (N, Q, C).
    """
    return _pool(avg_pool_call, 1, x, kernel_size, options)


@listing(2, avg_pool_call, sum_pool_call)
def avg_pool2d(x: A, kernel_size: AxisArgument, **options: Unpack[AvgPoolOptions[Images, A]]) -> A:
    """The average of each window.

    x: (N, C, H, W), or (N, H, W, C); stride is kernel_size by default; the padding is zero.
    ceil_mode keeps a last window that starts inside the input or its leading padding. A sum is
    divided by the cells of the window within the padded input (cells that only ceil_mode adds do
    not count); with count_include_pad=False by those within the input, and is 0 if there are none;
    divisor_override, an int but 0, replaces both. Returns y: (N, C, P, Q), or (N, P, Q, C).
    """
    return _pool(avg_pool_call, 2, x, kernel_size, options)


@listing(3, avg_pool_call, sum_pool_call)
def avg_pool3d(x: A, kernel_size: AxisArgument, **options: Unpack[AvgPoolOptions[Volumes, A]]) -> A:
    """The average of each window.

    x: (N, C, D, H, W), or (N, D, H, W, C); stride is kernel_size by default; the padding is zero.
    ceil_mode keeps a last window that starts inside the input or its leading padding. A sum is
    divided by the cells of the window within the padded input (cells that only ceil_mode adds do
    not count); with count_include_pad=False by those within the input, and is 0 if there are none;
    divisor_override, an int but 0, replaces both. Returns y: (N, C, Z, P, Q), or (N, Z, P, Q, C).
    """
    return _pool(avg_pool_call, 3, x, kernel_size, options)


@listing(1, avg_pool_call, sum_pool_call)
def avg_pool1d_grad(
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[AvgPoolOptions[Lines, A]],
) -> A:
    """The gradient of sum(avg_pool1d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad(avg_pool_call, 1, dy, input_shape, kernel_size, options)


@listing(2, avg_pool_call, sum_pool_call)
def avg_pool2d_grad(
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[AvgPoolOptions[Images, A]],
) -> A:
    """The gradient of sum(avg_pool2d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad(avg_pool_call, 2, dy, input_shape, kernel_size, options)


@listing(3, avg_pool_call, sum_pool_call)
def avg_pool3d_grad(
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[AvgPoolOptions[Volumes, A]],
) -> A:
    """The gradient of sum(avg_pool3d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad(avg_pool_call, 3, dy, input_shape, kernel_size, options)


@listing(1, sum_pool_call)
def sum_pool1d(x: A, kernel_size: AxisArgument, **options: Unpack[PoolOptions[Lines, A]]) -> A:
    """The sum of each window; the arguments are those of avg_pool1d."""
    return _pool(sum_pool_call, 1, x, kernel_size, options)


@listing(2, sum_pool_call)
def sum_pool2d(x: A, kernel_size: AxisArgument, **options: Unpack[PoolOptions[Images, A]]) -> A:
    """The sum of each window; the arguments are those of avg_pool2d."""
    return _pool(sum_pool_call, 2, x, kernel_size, options)


@listing(3, sum_pool_call)
def sum_pool3d(x: A, kernel_size: AxisArgument, **options: Unpack[PoolOptions[Volumes, A]]) -> A:
    """The sum of each window; the arguments are those of avg_pool3d."""
    return _pool(sum_pool_call, 3, x, kernel_size, options)


@listing(1, sum_pool_call)
def sum_pool1d_grad(
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[PoolOptions[Lines, A]],
) -> A:
    """The gradient of sum(sum_pool1d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad(sum_pool_call, 1, dy, input_shape, kernel_size, options)


@listing(2, sum_pool_call)
def sum_pool2d_grad(
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[PoolOptions[Images, A]],
) -> A:
    """The gradient of sum(sum_pool2d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad(sum_pool_call, 2, dy, input_shape, kernel_size, options)


@listing(3, sum_pool_call)
def sum_pool3d_grad(
    dy: A,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[PoolOptions[Volumes, A]],
) -> A:
    """The gradient of sum(sum_pool3d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _grad(sum_pool_call, 3, dy, input_shape, kernel_size, options)


@listing(1, plain_options)
def adaptive_avg_pool1d(x: A, output_size: AxisArgument, **options: Unpack[Options[Lines, A]]) -> A:
    """The averages of output_size windows that share the input evenly.

    x: (N, C, W), or (N, W, C); output_size: an int or one per spatial axis. Along an axis,
    window o holds the cells from floor(o * in / out) to below ceil((o + 1) * in / out): where out
    does not divide in, neighbours overlap. Returns y: (N, C, Q), or (N, Q, C), Q being output_size.
    """
    return _adaptive(1, x, output_size, options)


@listing(2, plain_options)
def adaptive_avg_pool2d(
    x: A, output_size: AxisArgument, **options: Unpack[Options[Images, A]]
) -> A:
    """The averages of output_size windows that share the input evenly.

    x: (N, C, H, W), or (N, H, W, C); output_size: an int or one per spatial axis. Along an axis,
    window o holds the cells from floor(o * in / out) to below ceil((o + 1) * in / out): where out
    does not divide in, neighbours overlap. Returns y: (N, C, P, Q), or (N, P, Q, C), P and Q being
    output_size.
    """
    return _adaptive(2, x, output_size, options)


@listing(3, plain_options)
def adaptive_avg_pool3d(
    x: A, output_size: AxisArgument, **options: Unpack[Options[Volumes, A]]
) -> A:
    """The averages of output_size windows that share the input evenly.

    x: (N, C, D, H, W), or (N, D, H, W, C); output_size: an int or one per spatial axis. Along an
    axis, window o holds the cells from floor(o * in / out) to below ceil((o + 1) * in / out): where
    out does not divide in, neighbours overlap. Returns y: (N, C, Z, P, Q), or (N, Z, P, Q, C), with
    Z, P and Q being output_size.
    """
    return _adaptive(3, x, output_size, options)


@listing(1, plain_options)
def adaptive_avg_pool1d_grad(
    dy: A, input_shape: Iterable[int], **options: Unpack[Options[Lines, A]]
) -> A:
    """The gradient of sum(adaptive_avg_pool1d(x) * dy) by x: dx, of shape input_shape, in layout.

    dy has the shape of adaptive_avg_pool1d's result, which says what output_size was.
    """
    return _adaptive_grad(1, dy, input_shape, None, options)


@listing(2, plain_options)
def adaptive_avg_pool2d_grad(
    dy: A, input_shape: Iterable[int], **options: Unpack[Options[Images, A]]
) -> A:
    """The gradient of sum(adaptive_avg_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    dy has the shape of adaptive_avg_pool2d's result, which says what output_size was.
    """
    return _adaptive_grad(2, dy, input_shape, None, options)


@listing(3, plain_options)
def adaptive_avg_pool3d_grad(
    dy: A, input_shape: Iterable[int], **options: Unpack[Options[Volumes, A]]
) -> A:
    """The gradient of sum(adaptive_avg_pool3d(x) * dy) by x: dx, of shape input_shape, in layout.

    dy has the shape of adaptive_avg_pool3d's result, which says what output_size was.
    """
    return _adaptive_grad(3, dy, input_shape, None, options)


@listing(1, plain_options)
def global_avg_pool1d(x: A, **options: Unpack[Options[Lines, A]]) -> A:
    """The average over the whole input: adaptive_avg_pool1d with an output_size of 1.

    x: (N, C, W), or (N, W, C). Returns y: (N, C, 1), or (N, 1, C).
    """
    return _adaptive(1, x, 1, options)


@listing(2, plain_options)
def global_avg_pool2d(x: A, **options: Unpack[Options[Images, A]]) -> A:
    """The average over the whole input: adaptive_avg_pool2d with an output_size of 1.

    x: (N, C, H, W), or (N, H, W, C). Returns y: (N, C, 1, 1), or (N, 1, 1, C).
    """
    return _adaptive(2, x, 1, options)


@listing(3, plain_options)
def global_avg_pool3d(x: A, **options: Unpack[Options[Volumes, A]]) -> A:
    """The average over the whole input: adaptive_avg_pool3d with an output_size of 1.

    x: (N, C, D, H, W), or (N, D, H, W, C). Returns y: (N, C, 1, 1, 1), or (N, 1, 1, 1, C).
    """
    return _adaptive(3, x, 1, options)


@listing(1, plain_options)
def global_avg_pool1d_grad(
    dy: A, input_shape: Iterable[int], **options: Unpack[Options[Lines, A]]
) -> A:
    """The gradient of sum(global_avg_pool1d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _adaptive_grad(1, dy, input_shape, 1, options)


@listing(2, plain_options)
def global_avg_pool2d_grad(
    dy: A, input_shape: Iterable[int], **options: Unpack[Options[Images, A]]
) -> A:
    """The gradient of sum(global_avg_pool2d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _adaptive_grad(2, dy, input_shape, 1, options)


@listing(3, plain_options)
def global_avg_pool3d_grad(
    dy: A, input_shape: Iterable[int], **options: Unpack[Options[Volumes, A]]
) -> A:
    """The gradient of sum(global_avg_pool3d(x) * dy) by x: dx, of shape input_shape, in layout."""
    return _adaptive_grad(3, dy, input_shape, 1, options)
