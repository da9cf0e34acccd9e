"""Max-pooling and its gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Unpack, overload

import numpy as np

from .._backend.dispatch import output, resolve
from .._backend.geometry import AxisArgument, shape_of
from .._backend.memory import new_array
from .options import (
    A,
    Array,
    Images,
    Lines,
    MaxPoolOptions,
    Options,
    Volumes,
    channel_axis,
    listing,
    max_pool_call,
    plain_options,
    sum_pool_call,
)


def _max_pool(
    axes: int,
    x: A,
    kernel_size: AxisArgument,
    return_indices: bool,
    options: MaxPoolOptions[Any, A],
) -> Any:
    backend, (x,) = resolve("x", x)
    geometry, shape, out = max_pool_call(axes, x.shape, kernel_size, **options)
    y: A = output(out, backend, shape, x.dtype, "x", x)
    indices = new_array(backend.xp, shape, np.int64, "indices") if return_indices else None
    backend.kernels.max_pool_fprop(geometry, x, y, indices)
    return (y, indices) if return_indices else y


def _max_pool_grad(
    axes: int, dy: A, indices: Array, input_shape: Iterable[int], options: Options[Any, A]
) -> A:
    backend, (dy, indices) = resolve("dy, indices", dy, indices)
    layout, out = plain_options(axes, **options)
    channels_last = channel_axis(dy, layout, axes) == -1
    x_shape = shape_of(input_shape, "input_shape", axes)
    dx: A = output(out, backend, x_shape, dy.dtype, "dy, indices", dy, indices)
    if dx.shape != x_shape:
        raise ValueError(f"out has shape {dx.shape}, expected {x_shape} (input_shape)")
    backend.kernels.max_pool_dgrad(dy, indices, dx, channels_last, out is None)
    return dx


def _global(axes: int, x: A, return_indices: bool, options: Options[Any, A]) -> Any:
    _, (x,) = resolve("x", x)
    layout, _ = plain_options(axes, **options)
    channels_last = channel_axis(x, layout, axes, "x") == -1
    cells = x.shape[1:-1] if channels_last else x.shape[2:]
    window = tuple(max(n, 1) for n in cells)  # where there is no cell, x is at fault
    whole: Any = options
    return _max_pool(axes, x, window, return_indices, whole)


@overload
def max_pool1d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: Literal[False] = ...,
    **options: Unpack[MaxPoolOptions[Lines, A]],
) -> A: ...


@overload
def max_pool1d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: Literal[True],
    **options: Unpack[MaxPoolOptions[Lines, A]],
) -> tuple[A, Any]: ...


@overload
def max_pool1d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: bool,
    **options: Unpack[MaxPoolOptions[Lines, A]],
) -> A | tuple[A, Any]: ...


@listing(1, max_pool_call, sum_pool_call)
def max_pool1d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: bool = False,
    **options: Unpack[MaxPoolOptions[Lines, A]],
) -> A | tuple[A, Any]:
    """The maximum of each window. Returns y, or (y, indices) with return_indices.

    x: (N, C, W), or (N, W, C); stride is kernel_size by default; the padding, at most
    half the dilated window, is -inf. ceil_mode keeps a last window that starts inside the input or
    its leading padding. Beside floats, x may be int8, uint8, int32 or int64, whose minimum is then
    the padding. A NaN in the window is its maximum. indices, int64 and of y's shape, are
    w of the first maximum (of the first NaN, if there is one) in either layout. A
    window of nothing but -inf gives -inf and its first cell; a window that dilation leaves without
    a cell gives -inf and -1.
    """
    pooled: A | tuple[A, Any] = _max_pool(1, x, kernel_size, return_indices, options)
    return pooled


@overload
def max_pool2d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: Literal[False] = ...,
    **options: Unpack[MaxPoolOptions[Images, A]],
) -> A: ...


@overload
def max_pool2d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: Literal[True],
    **options: Unpack[MaxPoolOptions[Images, A]],
) -> tuple[A, Any]: ...


@overload
def max_pool2d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: bool,
    **options: Unpack[MaxPoolOptions[Images, A]],
) -> A | tuple[A, Any]: ...


@listing(2, max_pool_call, sum_pool_call)
def max_pool2d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: bool = False,
    **options: Unpack[MaxPoolOptions[Images, A]],
) -> A | tuple[A, Any]:
    """The maximum of each window. Returns y, or (y, indices) with return_indices.

    x: (N, C, H, W), or (N, H, W, C); stride is kernel_size by default; the padding, at most half
    the dilated window, is -inf. ceil_mode keeps a last window that starts inside the input or its
    leading padding. Beside floats, x may be int8, uint8, int32 or int64, whose minimum is then the
    padding. A NaN in the window is its maximum. indices, int64 and of y's shape, are
    h * W + w of the first maximum in row order (of the first NaN, if there is one) in either
    layout. A window of nothing but -inf gives -inf and its first cell; a window that dilation
    leaves without a cell gives -inf and -1.
    """
    pooled: A | tuple[A, Any] = _max_pool(2, x, kernel_size, return_indices, options)
    return pooled


@overload
def max_pool3d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: Literal[False] = ...,
    **options: Unpack[MaxPoolOptions[Volumes, A]],
) -> A: ...


@overload
def max_pool3d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: Literal[True],
    **options: Unpack[MaxPoolOptions[Volumes, A]],
) -> tuple[A, Any]: ...


@overload
def max_pool3d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: bool,
    **options: Unpack[MaxPoolOptions[Volumes, A]],
) -> A | tuple[A, Any]: ...


@listing(3, max_pool_call, sum_pool_call)
def max_pool3d(
    x: A,
    kernel_size: AxisArgument,
    *,
    return_indices: bool = False,
    **options: Unpack[MaxPoolOptions[Volumes, A]],
) -> A | tuple[A, Any]:
    """The maximum of each window. Returns y, or (y, indices) with return_indices.

    x: (N, C, D, H, W), or (N, D, H, W, C); stride is kernel_size by default; the padding, at most
    half the dilated window, is -inf. ceil_mode keeps a last window that starts inside the input or
    its leading padding. Beside floats, x may be int8, uint8, int32 or int64, whose minimum is then
    the padding. A NaN in the window is its maximum. indices, int64 and of y's shape, are
    (d * H + h) * W + w of the first maximum in row order (of the first NaN, if there is one) in
    either layout. A window of nothing but -inf gives -inf and its first cell; a window that
    dilation leaves without a cell gives -inf and -1.
    """
    pooled: A | tuple[A, Any] = _max_pool(3, x, kernel_size, return_indices, options)
    return pooled


@listing(1, plain_options)
def max_pool1d_grad(
    dy: A, indices: Array, input_shape: Iterable[int], **options: Unpack[Options[Lines, A]]
) -> A:
    """The gradient of sum(max_pool1d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call: each must lie in [-1, W) (ValueError); -1 takes no
    gradient. Where windows overlap, their gradients add up.
    """
    return _max_pool_grad(1, dy, indices, input_shape, options)


@listing(2, plain_options)
def max_pool2d_grad(
    dy: A, indices: Array, input_shape: Iterable[int], **options: Unpack[Options[Images, A]]
) -> A:
    """The gradient of sum(max_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call: each must lie in [-1, H * W) (ValueError); -1 takes no
    gradient. Where windows overlap, their gradients add up.
    """
    return _max_pool_grad(2, dy, indices, input_shape, options)


@listing(3, plain_options)
def max_pool3d_grad(
    dy: A, indices: Array, input_shape: Iterable[int], **options: Unpack[Options[Volumes, A]]
) -> A:
    """The gradient of sum(max_pool3d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call: each must lie in [-1, D * H * W) (ValueError); -1 takes
    no gradient. Where windows overlap, their gradients add up.
    """
    return _max_pool_grad(3, dy, indices, input_shape, options)


@overload
def global_max_pool1d(
    x: A, *, return_indices: Literal[False] = ..., **options: Unpack[Options[Lines, A]]
) -> A: ...


@overload
def global_max_pool1d(
    x: A, *, return_indices: Literal[True], **options: Unpack[Options[Lines, A]]
) -> tuple[A, Any]: ...


@overload
def global_max_pool1d(
    x: A, *, return_indices: bool, **options: Unpack[Options[Lines, A]]
) -> A | tuple[A, Any]: ...


@listing(1, plain_options)
def global_max_pool1d(
    x: A, *, return_indices: bool = False, **options: Unpack[Options[Lines, A]]
) -> A | tuple[A, Any]:
    """The maximum over the whole input: max_pool1d with one window over all of it.

    x: (N, C, W), or (N, W, C). Returns y: (N, C, 1), or (N, 1, C); or (y, indices).
    """
    pooled: A | tuple[A, Any] = _global(1, x, return_indices, options)
    return pooled


@overload
def global_max_pool2d(
    x: A, *, return_indices: Literal[False] = ..., **options: Unpack[Options[Images, A]]
) -> A: ...


@overload
def global_max_pool2d(
    x: A, *, return_indices: Literal[True], **options: Unpack[Options[Images, A]]
) -> tuple[A, Any]: ...


@overload
def global_max_pool2d(
    x: A, *, return_indices: bool, **options: Unpack[Options[Images, A]]
) -> A | tuple[A, Any]: ...


@listing(2, plain_options)
def global_max_pool2d(
    x: A, *, return_indices: bool = False, **options: Unpack[Options[Images, A]]
) -> A | tuple[A, Any]:
    """The maximum over the whole input: max_pool2d with one window over all of it.

    x: (N, C, H, W), or (N, H, W, C). Returns y: (N, C, 1, 1), or (N, 1, 1, C); or (y, indices).
    """
    pooled: A | tuple[A, Any] = _global(2, x, return_indices, options)
    return pooled


@overload
def global_max_pool3d(
    x: A, *, return_indices: Literal[False] = ..., **options: Unpack[Options[Volumes, A]]
) -> A: ...


@overload
def global_max_pool3d(
    x: A, *, return_indices: Literal[True], **options: Unpack[Options[Volumes, A]]
) -> tuple[A, Any]: ...


@overload
def global_max_pool3d(
    x: A, *, return_indices: bool, **options: Unpack[Options[Volumes, A]]
) -> A | tuple[A, Any]: ...


@listing(3, plain_options)
def global_max_pool3d(
    x: A, *, return_indices: bool = False, **options: Unpack[Options[Volumes, A]]
) -> A | tuple[A, Any]:
    """The maximum over the whole input: max_pool3d with one window over all of it.

    x: (N, C, D, H, W), or (N, D, H, W, C).
    Returns y: (N, C, 1, 1, 1), or (N, 1, 1, 1, C); or (y, indices).
    """
    pooled: A | tuple[A, Any] = _global(3, x, return_indices, options)
    return pooled


@listing(1, plain_options)
def global_max_pool1d_grad(
    dy: A, indices: Array, input_shape: Iterable[int], **options: Unpack[Options[Lines, A]]
) -> A:
    """The gradient of sum(global_max_pool1d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call, as in max_pool1d_grad.
    """
    return _max_pool_grad(1, dy, indices, input_shape, options)


@listing(2, plain_options)
def global_max_pool2d_grad(
    dy: A, indices: Array, input_shape: Iterable[int], **options: Unpack[Options[Images, A]]
) -> A:
    """The gradient of sum(global_max_pool2d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call, as in max_pool2d_grad.
    """
    return _max_pool_grad(2, dy, indices, input_shape, options)


@listing(3, plain_options)
def global_max_pool3d_grad(
    dy: A, indices: Array, input_shape: Iterable[int], **options: Unpack[Options[Volumes, A]]
) -> A:
    """The gradient of sum(global_max_pool3d(x) * dy) by x: dx, of shape input_shape, in layout.

    indices are those of the forward call, as in max_pool3d_grad.
    """
    return _max_pool_grad(3, dy, indices, input_shape, options)
