"""Max-pooling for layers: the gradient knows where the maxima were by a byte a window."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Unpack

import numpy as np

from .._backend.dispatch import output, resolve
from .._backend.geometry import AxisArgument, per_axis, shape_of
from .max_pool import _max_pool_grad
from .options import (
    A,
    Array,
    Images,
    Lines,
    MaxPoolOptions,
    Volumes,
    listing,
    max_pool_call,
    sum_pool_call,
)

_MOST_TAPS = 255  # of a window: their numbers are bytes, and one of these says that there is none


def _with_offsets(
    axes: int,
    x: Any,
    kernel_size: AxisArgument,
    rectified: bool,
    options: MaxPoolOptions[Any, tuple[Any, Any]],
) -> tuple[Any, Any]:
    backend, (x,) = resolve("x", x)
    geometry, shape, out = max_pool_call(axes, x.shape, kernel_size, **options)
    by_byte = math.prod(per_axis(kernel_size, "kernel_size", axes)) <= _MOST_TAPS
    y, offsets = (None, None) if out is None else out
    y = output(y, backend, shape, x.dtype, "x", x)
    offsets = output(offsets, backend, shape, np.uint8 if by_byte else np.int64, "x, y", x, y)
    if by_byte:
        backend.kernels.max_pool_offsets_fprop(geometry, x, y, offsets, rectified)
    else:
        backend.kernels.max_pool_fprop(geometry, x, y, offsets)
        if rectified:
            offsets[~(y > 0)] = -1
    return y, offsets


def _offsets_grad(
    axes: int,
    dy: A,
    offsets: Any,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    options: MaxPoolOptions[Any, A],
) -> A:
    backend, (dy, offsets) = resolve("dy, offsets", dy, offsets)
    x_shape = shape_of(input_shape, "input_shape", axes)
    geometry, _, out = max_pool_call(axes, x_shape, kernel_size, **options)
    if offsets.dtype != np.uint8:
        plain: Any = {key: value for key, value in options.items() if key in ("layout", "out")}
        dx: A = _max_pool_grad(axes, dy, offsets, x_shape, plain)
        return dx
    dx = output(out, backend, x_shape, dy.dtype, "dy, offsets", dy, offsets)
    backend.kernels.max_pool_offsets_dgrad(geometry, dy, offsets, dx)
    return dx


@listing(1, max_pool_call, sum_pool_call)
def max_pool1d_offsets(
    x: A,
    kernel_size: AxisArgument,
    *,
    rectified: bool = False,
    **options: Unpack[MaxPoolOptions[Lines, tuple[A, Any]]],
) -> tuple[A, Any]:
    """max_pool1d and, for max_pool1d_offsets_grad, where the maxima were: (y, offsets).

    `offsets` has the shape of y and holds the cell's number in its window as a byte, 255 for none;
    or, if windows have more than 255 cells, max_pool1d's indices. With `rectified` x must be the
    output of a ReLU, and the gradient is that of the ReLU's input: maxima of zero have none.
    """
    return _with_offsets(1, x, kernel_size, rectified, options)


@listing(2, max_pool_call, sum_pool_call)
def max_pool2d_offsets(
    x: A,
    kernel_size: AxisArgument,
    *,
    rectified: bool = False,
    **options: Unpack[MaxPoolOptions[Images, tuple[A, Any]]],
) -> tuple[A, Any]:
    """max_pool2d and, for max_pool2d_offsets_grad, where the maxima were: (y, offsets).

    `offsets` has the shape of y and holds the cell's number in its window as a byte, 255 for none;
    or, if windows have more than 255 cells, max_pool2d's indices. With `rectified` x must be the
    output of a ReLU, and the gradient is that of the ReLU's input: maxima of zero have none.
    """
    return _with_offsets(2, x, kernel_size, rectified, options)


@listing(3, max_pool_call, sum_pool_call)
def max_pool3d_offsets(
    x: A,
    kernel_size: AxisArgument,
    *,
    rectified: bool = False,
    **options: Unpack[MaxPoolOptions[Volumes, tuple[A, Any]]],
) -> tuple[A, Any]:
    """max_pool3d and, for max_pool3d_offsets_grad, where the maxima were: (y, offsets).

    `offsets` has the shape of y and holds the cell's number in its window as a byte, 255 for none;
    or, if windows have more than 255 cells, max_pool3d's indices. With `rectified` x must be the
    output of a ReLU, and the gradient is that of the ReLU's input: maxima of zero have none.
    """
    return _with_offsets(3, x, kernel_size, rectified, options)


@listing(1, max_pool_call, sum_pool_call)
def max_pool1d_offsets_grad(
    dy: A,
    offsets: Array,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[MaxPoolOptions[Lines, A]],
) -> A:
    """The gradient of sum(max_pool1d(x) * dy) by x, from `offsets` of max_pool1d_offsets."""
    return _offsets_grad(1, dy, offsets, input_shape, kernel_size, options)


@listing(2, max_pool_call, sum_pool_call)
def max_pool2d_offsets_grad(
    dy: A,
    offsets: Array,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[MaxPoolOptions[Images, A]],
) -> A:
    """The gradient of sum(max_pool2d(x) * dy) by x, from `offsets` of max_pool2d_offsets."""
    return _offsets_grad(2, dy, offsets, input_shape, kernel_size, options)


@listing(3, max_pool_call, sum_pool_call)
def max_pool3d_offsets_grad(
    dy: A,
    offsets: Array,
    input_shape: Iterable[int],
    kernel_size: AxisArgument,
    **options: Unpack[MaxPoolOptions[Volumes, A]],
) -> A:
    """The gradient of sum(max_pool3d(x) * dy) by x, from `offsets` of max_pool3d_offsets."""
    return _offsets_grad(3, dy, offsets, input_shape, kernel_size, options)
