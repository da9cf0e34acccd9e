"""Average and sum pooling over windows, adaptive windows and whole inputs, and the gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._backend import geometry as _geometry
from .._backend.dispatch import Backend, output, resolve
from .._backend.geometry import AxisArgument, PaddingArgument
from ._ranks import other_ranks
from .options import Array, Layout, channel_axis


def avg_pool2d(
    x: Array,
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The average of each window.

    x: (N, C, H, W), or (N, H, W, C); stride is kernel_size by default; the padding is zero.
    ceil_mode keeps a last window that starts inside the input or its leading padding. A sum is
    divided by the cells of the window within the padded input (cells that only ceil_mode adds do
    not count); with count_include_pad=False by those within the input, and is 0 if there are none;
    divisor_override, an int but 0, replaces both. Returns y: (N, C, P, Q), or (N, P, Q, C).
    """
    divisor = _divisor(divisor_override)
    backend, (x,) = resolve(x=x)
    geometry, shape = _geometry.pool_geometry(
        _axes, x.shape, kernel_size, stride, padding, 1, ceil_mode, layout
    )
    y = output(out, backend, shape, x.dtype, x=x)
    backend.kernels.avg_pool_fprop(geometry, x, y, bool(count_include_pad), divisor)
    return y


def avg_pool2d_grad(
    dy: Array,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(avg_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    dy has the shape of avg_pool2d's result; the other arguments are those of the forward call.
    """
    divisor = _divisor(divisor_override)
    backend, (dy,) = resolve(dy=dy)
    x_shape = _geometry.shape_of(input_shape, "input_shape", _axes)
    geometry, _ = _geometry.pool_geometry(
        _axes, x_shape, kernel_size, stride, padding, 1, ceil_mode, layout
    )
    dx = output(out, backend, x_shape, dy.dtype, dy=dy)
    backend.kernels.avg_pool_dgrad(geometry, dy, dx, bool(count_include_pad), divisor)
    return dx


def _divisor(override: int | None) -> int:
    """What every sum is divided by, 0 for none."""
    if override is None:
        return 0
    divisor = _geometry.integer(override, "divisor_override")
    if divisor == 0:
        raise ValueError("divisor_override must not be 0")
    return divisor


def sum_pool2d(
    x: Array,
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    ceil_mode: bool = False,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The sum of each window; the arguments are those of avg_pool2d."""
    options: dict[str, Any] = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    return avg_pool2d(
        x, kernel_size, **options, divisor_override=1, layout=layout, out=out, _axes=_axes
    )


def sum_pool2d_grad(
    dy: Array,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    ceil_mode: bool = False,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(sum_pool2d(x) * dy) by x: dx, of shape input_shape, in layout."""
    options: dict[str, Any] = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    return avg_pool2d_grad(
        dy,
        input_shape,
        kernel_size,
        **options,
        divisor_override=1,
        layout=layout,
        out=out,
        _axes=_axes,
    )


def adaptive_avg_pool2d(
    x: Array,
    output_size: AxisArgument,
    *,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The averages of output_size windows that share the input evenly.

    x: (N, C, H, W), or (N, H, W, C); output_size: an int or one per spatial axis. Along an axis,
    window o holds the cells from floor(o * in / out) to below ceil((o + 1) * in / out): where out
    does not divide in, neighbours overlap. Returns y: (N, C, P, Q), or (N, P, Q, C), P and Q being
    output_size.
    """
    backend, (x,) = resolve(x=x)
    geometry, shape = _geometry.adaptive_geometry(_axes, x.shape, output_size, layout)
    y = output(out, backend, shape, x.dtype, x=x)
    backend.kernels.avg_pool_fprop(geometry, x, y, False, 0)
    return y


def adaptive_avg_pool2d_grad(
    dy: Array,
    input_shape: Iterable[int],
    *,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(adaptive_avg_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    dy has the shape of adaptive_avg_pool2d's result, which says what output_size was.
    """
    backend, (dy,) = resolve(dy=dy)
    channels_last = channel_axis(dy, layout, _axes) == -1
    output_size = dy.shape[1:-1] if channels_last else dy.shape[2:]
    return _adaptive_grad(backend, dy, input_shape, output_size, layout, out, _axes)


def global_avg_pool2d(
    x: Array, *, layout: Layout = "NCHW", out: Array | None = None, _axes: int = 2
) -> Array:
    """The average over the whole input: adaptive_avg_pool2d with an output_size of 1.

    x: (N, C, H, W), or (N, H, W, C). Returns y: (N, C, 1, 1), or (N, 1, 1, C).
    """
    return adaptive_avg_pool2d(x, 1, layout=layout, out=out, _axes=_axes)


def global_avg_pool2d_grad(
    dy: Array,
    input_shape: Iterable[int],
    *,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(global_avg_pool2d(x) * dy) by x: dx, of shape input_shape, in layout."""
    backend, (dy,) = resolve(dy=dy)
    return _adaptive_grad(backend, dy, input_shape, 1, layout, out, _axes)


def _adaptive_grad(
    backend: Backend,
    dy: Array,
    input_shape: Iterable[int],
    output_size: AxisArgument,
    layout: str,
    out: Array | None,
    axes: int,
) -> Array:
    x_shape = _geometry.shape_of(input_shape, "input_shape", axes)
    geometry, _ = _geometry.adaptive_geometry(axes, x_shape, output_size, layout)
    dx = output(out, backend, x_shape, dy.dtype, dy=dy)
    backend.kernels.avg_pool_dgrad(geometry, dy, dx, False, 0)
    return dx


avg_pool1d, avg_pool3d = other_ranks(avg_pool2d)
avg_pool1d_grad, avg_pool3d_grad = other_ranks(avg_pool2d_grad)
sum_pool1d, sum_pool3d = other_ranks(sum_pool2d)
sum_pool1d_grad, sum_pool3d_grad = other_ranks(sum_pool2d_grad)
adaptive_avg_pool1d, adaptive_avg_pool3d = other_ranks(adaptive_avg_pool2d)
adaptive_avg_pool1d_grad, adaptive_avg_pool3d_grad = other_ranks(adaptive_avg_pool2d_grad)
global_avg_pool1d, global_avg_pool3d = other_ranks(global_avg_pool2d)
global_avg_pool1d_grad, global_avg_pool3d_grad = other_ranks(global_avg_pool2d_grad)
