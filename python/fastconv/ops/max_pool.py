"""Max-pooling and its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._backend import geometry as _geometry
from .._backend.dispatch import output, resolve
from .._backend.geometry import AxisArgument, PaddingArgument
from .._backend.memory import new_array
from ._ranks import other_ranks
from .options import Array, Layout, channel_axis

_MOST_TAPS = 255  # of a window: their numbers are bytes, and one of these says that there is none


def max_pool2d(
    x: Array,
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    ceil_mode: bool = False,
    layout: Layout = "NCHW",
    return_indices: bool = False,
    out: Array | None = None,
    _axes: int = 2,
) -> Array | tuple[Array, Array]:
    """The maximum of each window. Returns y, or (y, indices) with return_indices.

    x: (N, C, H, W), or (N, H, W, C); stride is kernel_size by default; the padding, at most half
    the dilated window, is -inf. ceil_mode keeps a last window that starts inside the input or its
    leading padding. Beside floats, x may be int8, uint8, int32 or int64, whose minimum is then the
    padding. A NaN in the window is its maximum. indices, int64 and of y's shape, are
    h * W + w of the first maximum in row order (of the first NaN, if there is one) in either
    layout. A window of nothing but -inf gives -inf and its first cell; a window that dilation
    leaves without a cell gives -inf and -1.
    """
    backend, (x,) = resolve(x=x)
    geometry, shape = _geometry.pool_geometry(
        _axes, x.shape, kernel_size, stride, padding, dilation, ceil_mode, layout
    )
    y = output(out, backend, shape, x.dtype, x=x)
    indices = new_array(backend.xp, shape, np.int64, "indices") if return_indices else None
    backend.kernels.max_pool_fprop(geometry, x, y, indices)
    return (y, indices) if return_indices else y


def max_pool2d_grad(
    dy: Array,
    indices: Array,
    input_shape: Iterable[int],
    *,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(max_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call: each must lie in [-1, H * W) (ValueError); -1 takes no
    gradient. Where windows overlap, their gradients add up.
    """
    backend, (dy, indices) = resolve(dy=dy, indices=indices)
    channels_last = channel_axis(dy, layout, _axes) == -1
    x_shape = _geometry.shape_of(input_shape, "input_shape", _axes)
    dx = output(out, backend, x_shape, dy.dtype, dy=dy, indices=indices)
    if dx.shape != x_shape:
        raise ValueError(f"out has shape {dx.shape}, expected {x_shape} (input_shape)")
    backend.kernels.max_pool_dgrad(dy, indices, dx, channels_last, out is None)
    return dx


def max_pool2d_tracked(
    x: Array,
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    ceil_mode: bool = False,
    layout: Layout = "NCHW",
    rectified: bool = False,
    out: tuple[Array, Array] | None = None,
    _axes: int = 2,
) -> tuple[Array, Array]:
    """max_pool2d and, for max_pool2d_tracked_grad, where the maxima were: (y, source).

    `source` has the shape of y and holds the cell's number in its window as a byte, 255
    for none; or, if windows have more than 255 cells, max_pool2d's indices. With `rectified` x must
    be the output of a ReLU, and the gradient is that of the ReLU's input: maxima of zero have no
    source.
    """
    cells = math.prod(_geometry.per_axis(kernel_size, "kernel_size", _axes))
    if cells > _MOST_TAPS:
        options: dict[str, Any] = {"dilation": dilation, "ceil_mode": ceil_mode, "layout": layout}
        options |= {"stride": stride, "padding": padding, "return_indices": True, "_axes": _axes}
        y, indices = max_pool2d(x, kernel_size, **options)
        if rectified:
            indices[~(y > 0)] = -1
        return y, indices
    backend, (x,) = resolve(x=x)
    geometry, shape = _geometry.pool_geometry(
        _axes, x.shape, kernel_size, stride, padding, dilation, ceil_mode, layout
    )
    y, offsets = (None, None) if out is None else out
    y = output(y, backend, shape, x.dtype, x=x)
    offsets = output(offsets, backend, shape, np.uint8, x=x)
    backend.kernels.max_pool_offsets_fprop(geometry, x, y, offsets, rectified)
    return y, offsets


def max_pool2d_tracked_grad(
    dy: Array,
    source: Array,
    input_shape: tuple[int, ...],
    kernel_size: AxisArgument,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    ceil_mode: bool = False,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(max_pool2d(x) * dy) by x, from `source` of max_pool2d_tracked."""
    if source.dtype != np.uint8:
        return max_pool2d_grad(dy, source, input_shape, layout=layout, out=out, _axes=_axes)
    backend, (dy, source) = resolve(dy=dy, source=source)
    geometry, _ = _geometry.pool_geometry(
        _axes, input_shape, kernel_size, stride, padding, dilation, ceil_mode, layout
    )
    dx = output(out, backend, input_shape, dy.dtype, dy=dy)
    backend.kernels.max_pool_offsets_dgrad(geometry, dy, source, dx)
    return dx


def global_max_pool2d(
    x: Array,
    *,
    layout: Layout = "NCHW",
    return_indices: bool = False,
    out: Array | None = None,
    _axes: int = 2,
) -> Array | tuple[Array, Array]:
    """The maximum over the whole input: max_pool2d with one window over all of it.

    x: (N, C, H, W), or (N, H, W, C). Returns y: (N, C, 1, 1), or (N, 1, 1, C); or (y, indices).
    """
    _, (x,) = resolve(x=x)
    channels_last = channel_axis(x, layout, _axes, "x") == -1
    cells = x.shape[1:-1] if channels_last else x.shape[2:]
    window = tuple(max(n, 1) for n in cells)  # where there is no cell, x is at fault
    options: dict[str, Any] = {"layout": layout, "return_indices": return_indices}
    return max_pool2d(x, window, **options, out=out, _axes=_axes)


def global_max_pool2d_grad(
    dy: Array,
    indices: Array,
    input_shape: Iterable[int],
    *,
    layout: Layout = "NCHW",
    out: Array | None = None,
    _axes: int = 2,
) -> Array:
    """The gradient of sum(global_max_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call, as in max_pool2d_grad.
    """
    return max_pool2d_grad(dy, indices, input_shape, layout=layout, out=out, _axes=_axes)


max_pool1d, max_pool3d = other_ranks(max_pool2d)
max_pool1d_grad, max_pool3d_grad = other_ranks(max_pool2d_grad)
max_pool1d_tracked, max_pool3d_tracked = other_ranks(max_pool2d_tracked)
max_pool1d_tracked_grad, max_pool3d_tracked_grad = other_ranks(max_pool2d_tracked_grad)
global_max_pool1d, global_max_pool3d = other_ranks(global_max_pool2d)
global_max_pool1d_grad, global_max_pool3d_grad = other_ranks(global_max_pool2d_grad)
